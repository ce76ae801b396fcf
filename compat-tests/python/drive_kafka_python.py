"""kafka-python, driven by the tests; see driver.py."""

import sys

import kafka
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import AlterConfigOp, ConfigResource, OffsetSpec
from kafka.errors import for_code

from driver import (
    EARLIEST,
    HEARTBEAT_MS,
    LATEST,
    MAX_BYTES,
    REBALANCE_MS,
    SESSION_MS,
    TIMEOUT,
    decode,
    decode_headers,
    encode_record,
    serve,
)


class Driver:
    def __init__(self, bootstrap):
        self.bootstrap = bootstrap.split(",")
        self.admin = KafkaAdminClient(bootstrap_servers=self.bootstrap)

    def version(self, _):
        return {"version": kafka.__version__, "codecs": ["none", "gzip", "snappy", "lz4", "zstd"]}

    def consumer(self, **config):
        return KafkaConsumer(
            bootstrap_servers=self.bootstrap,
            enable_auto_commit=False,
            max_partition_fetch_bytes=MAX_BYTES,
            auto_offset_reset="earliest",
            **config,
        )

    def produce(self, r):
        producer = KafkaProducer(
            bootstrap_servers=self.bootstrap,
            compression_type=None if r["codec"] == "none" else r["codec"],
            enable_idempotence=True,
            max_request_size=MAX_BYTES,
            linger_ms=5,
        )
        futures = [
            producer.send(
                r["topic"],
                partition=record["partition"],
                timestamp_ms=record["timestamp"],
                key=decode(record["key"]),
                value=decode(record["value"]),
                headers=decode_headers(record),
            )
            for record in r["records"]
        ]
        offsets = [future.get(TIMEOUT).offset for future in futures]
        producer.close()
        return {"offsets": offsets}

    def offsets(self, r):
        spec = {EARLIEST: OffsetSpec.EARLIEST, LATEST: OffsetSpec.LATEST}.get(r["timestamp"], r["timestamp"])
        partitions = [TopicPartition(r["topic"], p) for p in range(r["partitions"])]
        found = self.admin.list_partition_offsets({p: spec for p in partitions})
        return {"offsets": [found[p].offset for p in partitions]}

    def read(self, r):
        # The consumer's own look-up, which goes another way than the admin client's.
        consumer = self.consumer()
        partitions = [TopicPartition(r["topic"], p) for p in range(r["partitions"])]
        if r["timestamp"] == EARLIEST:
            starts = consumer.beginning_offsets(partitions)
        else:
            found = consumer.offsets_for_times({p: r["timestamp"] for p in partitions})
            starts = {p: at.offset for p, at in found.items() if at is not None}
        ends = consumer.end_offsets(partitions)
        consumer.assign(list(starts))
        for p, offset in starts.items():
            consumer.seek(p, offset)
        records = take(consumer, sum(ends[p] - offset for p, offset in starts.items()))
        consumer.close()
        return {"records": records}

    def read_group(self, r):
        consumer = self.consumer(group_id=r["group"])
        subscribe(consumer, r["topic"])
        records = take(consumer, r["count"])
        consumer.commit()
        consumer.close()
        return {"records": records}

    def create_topic(self, r):
        self.admin.create_topics({r["topic"]: {"num_partitions": r["partitions"], "configs": r.get("configs", {})}})

    def partition_count(self, r):
        [topic] = self.admin.describe_topics([r["topic"]])
        if topic["error_code"]:
            raise for_code(topic["error_code"])(r["topic"])
        return {"count": len(topic["partitions"])}

    def create_partitions(self, r):
        self.admin.create_partitions({r["topic"]: r["count"]})

    def topic_configs(self, r):
        resource = ConfigResource("TOPIC", r["topic"])
        configs = self.admin.describe_configs([resource], config_filter="all")["topic"][r["topic"]]
        return {"configs": {name: c["value"] for name, c in configs.items() if c["value"] is not None}}

    def alter_topic_config(self, r):
        configs = {name: (AlterConfigOp.SET, value) for name, value in r["configs"].items()}
        result = self.admin.alter_configs([ConfigResource("TOPIC", r["topic"], configs)])
        require_ok(result["topic"][r["topic"]])

    def delete_topic(self, r):
        self.admin.delete_topics([r["topic"]])

    def groups(self, _):
        return {"groups": [group["group_id"] for group in self.admin.list_groups()]}

    def describe_group(self, r):
        group = self.admin.describe_groups([r["group"]])[r["group"]]
        if group["error"]:
            raise RuntimeError(group["error"])
        return {"state": group["group_state"], "count": len(group["members"])}

    def delete_group(self, r):
        require_ok(self.admin.delete_groups([r["group"]])[r["group"]])

    def join(self, r):
        return Member(
            r["topic"],
            self.consumer(
                group_id=r["group"],
                heartbeat_interval_ms=HEARTBEAT_MS,
                session_timeout_ms=SESSION_MS,
                max_poll_interval_ms=REBALANCE_MS,
            ),
        )


class Member:
    def __init__(self, topic, consumer):
        self.topic = topic
        self.consumer = consumer
        subscribe(consumer, topic)

    def poll(self, r):
        return {"records": poll(self.consumer, r["waitMillis"], r["count"])}

    def assignment(self, _):
        return {"partitions": [p.partition for p in self.consumer.assignment()]}

    def commit(self, _):
        self.consumer.commit(timeout_ms=TIMEOUT * 1000)

    def seek(self, r):
        self.consumer.seek(TopicPartition(self.topic, r["partition"]), r["offset"])

    def pause(self, r):
        self.consumer.pause(TopicPartition(self.topic, r["partition"]))

    def resume(self, r):
        self.consumer.resume(TopicPartition(self.topic, r["partition"]))

    def leave(self, _):
        self.consumer.close()


def subscribe(consumer, topic):
    """Subscribes once the client knows the topic.

    kafka-python 3.0.12 may else join the group before it does, assign nothing, and never join again: now and then, with
    Apache Kafka too.
    """
    consumer.partitions_for_topic(topic)
    consumer.subscribe([topic])


def poll(consumer, wait_ms, count):
    batches = consumer.poll(timeout_ms=wait_ms, max_records=count)
    return [encode_record(record) for batch in batches.values() for record in batch]


def take(consumer, count):
    records = []
    while len(records) < count:
        more = poll(consumer, TIMEOUT * 1000, count - len(records))
        if not more:
            raise TimeoutError(f"read {len(records)} of {count} records")
        records += more
    return records


def require_ok(result):
    if result != "OK":
        raise RuntimeError(result)


serve(Driver(sys.argv[1]))

"""librdkafka under confluent-kafka, driven by the tests; see driver.py."""

import os
import sys

import confluent_kafka
from confluent_kafka import (
    OFFSET_BEGINNING,
    Consumer,
    KafkaError,
    KafkaException,
    Producer,
    TopicCollection,
    TopicPartition,
)
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewPartitions,
    NewTopic,
    OffsetSpec,
    ResourceType,
)

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
    encode,
    serve,
)

VERSION = f"{confluent_kafka.libversion()[0]} (confluent-kafka {confluent_kafka.__version__})"


def encode_message(message):
    if message.error():
        raise KafkaException(message.error())
    return {
        "partition": message.partition(),
        "offset": message.offset(),
        "timestamp": message.timestamp()[1],
        "key": encode(message.key()),
        "value": encode(message.value()),
        "headers": [{"key": k, "value": encode(v)} for k, v in message.headers() or []],
    }


class Driver:
    def __init__(self, bootstrap):
        self.config = {"bootstrap.servers": bootstrap}
        if "COMPAT_CLIENT_ID" in os.environ:
            self.config["client.id"] = os.environ["COMPAT_CLIENT_ID"]
        self.admin = AdminClient(self.config)

    def version(self, _):
        return {"version": VERSION, "codecs": ["none", "gzip", "snappy", "lz4", "zstd"]}

    def consumer(self, **config):
        return Consumer(self.config | {"enable.auto.commit": False, "fetch.message.max.bytes": MAX_BYTES} | config)

    def produce(self, r):
        producer = Producer(
            self.config
            | {"compression.type": r["codec"], "enable.idempotence": True, "message.max.bytes": MAX_BYTES}
        )
        delivered = {}

        def on_delivery(index):
            def note(error, message):
                delivered[index] = error or message.offset()

            return note

        for i, record in enumerate(r["records"]):
            producer.produce(
                r["topic"],
                partition=record["partition"],
                timestamp=record["timestamp"],
                key=decode(record["key"]),
                value=decode(record["value"]),
                headers=decode_headers(record),
                on_delivery=on_delivery(i),
            )
        producer.flush(TIMEOUT)
        offsets = [delivered.get(i, KafkaError(KafkaError._TIMED_OUT)) for i in range(len(r["records"]))]
        for offset in offsets:
            if isinstance(offset, KafkaError):
                raise KafkaException(offset)
        return {"offsets": offsets}

    def offsets(self, r):
        spec = {EARLIEST: OffsetSpec.earliest(), LATEST: OffsetSpec.latest()}
        spec = spec.get(r["timestamp"]) or OffsetSpec.for_timestamp(r["timestamp"])
        request = {TopicPartition(r["topic"], p): spec for p in range(r["partitions"])}
        futures = self.admin.list_offsets(request, request_timeout=TIMEOUT)
        found = {partition.partition: future.result() for partition, future in futures.items()}
        return {"offsets": [found[p].offset for p in range(r["partitions"])]}

    def read(self, r):
        # The consumer's own look-up, which goes another way than the admin client's.
        consumer = self.consumer(**{"group.id": "unused"})
        partitions = [TopicPartition(r["topic"], p, r["timestamp"]) for p in range(r["partitions"])]
        if r["timestamp"] != EARLIEST:
            partitions = consumer.offsets_for_times(partitions, timeout=TIMEOUT)
        starts, remaining = [], 0
        for p in partitions:
            low, high = consumer.get_watermark_offsets(p, timeout=TIMEOUT)
            start = low if r["timestamp"] == EARLIEST else p.offset
            if start >= 0:
                # The library takes high for low if the look-up of low failed (see the report's quirks).
                begin = OFFSET_BEGINNING if r["timestamp"] == EARLIEST else start
                starts.append(TopicPartition(p.topic, p.partition, begin))
                remaining += high - start
        consumer.assign(starts)
        records = take(consumer, remaining)
        consumer.close()
        return {"records": records}

    def read_group(self, r):
        consumer = self.consumer(**{"group.id": r["group"], "auto.offset.reset": "earliest"})
        consumer.subscribe([r["topic"]])
        records = take(consumer, r["count"])
        following = {x["partition"]: x["offset"] + 1 for x in records}
        offsets = [TopicPartition(r["topic"], p, o) for p, o in following.items()]
        consumer.commit(offsets=offsets, asynchronous=False)
        consumer.close()
        return {"records": records}

    def create_topic(self, r):
        topic = NewTopic(r["topic"], num_partitions=r["partitions"], config=r.get("configs", {}))
        self.admin.create_topics([topic])[r["topic"]].result(TIMEOUT)

    def partition_count(self, r):
        # Not list_topics, which creates the topic that it asks for.
        topics = self.admin.describe_topics(TopicCollection([r["topic"]]))
        return {"count": len(topics[r["topic"]].result(TIMEOUT).partitions)}

    def create_partitions(self, r):
        self.admin.create_partitions([NewPartitions(r["topic"], r["count"])])[r["topic"]].result(TIMEOUT)

    def topic_configs(self, r):
        resource = ConfigResource(ResourceType.TOPIC, r["topic"])
        configs = self.admin.describe_configs([resource])[resource].result(TIMEOUT)
        return {"configs": {name: entry.value for name, entry in configs.items() if entry.value is not None}}

    def alter_topic_config(self, r):
        entries = [
            ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET)
            for name, value in r["configs"].items()
        ]
        resource = ConfigResource(ResourceType.TOPIC, r["topic"], incremental_configs=entries)
        self.admin.incremental_alter_configs([resource])[resource].result(TIMEOUT)

    def delete_topic(self, r):
        self.admin.delete_topics([r["topic"]])[r["topic"]].result(TIMEOUT)

    def groups(self, _):
        listing = self.admin.list_consumer_groups(request_timeout=TIMEOUT).result(TIMEOUT)
        if listing.errors:
            raise listing.errors[0]
        return {"groups": [group.group_id for group in listing.valid]}

    def describe_group(self, r):
        group = self.admin.describe_consumer_groups([r["group"]])[r["group"]].result(TIMEOUT)
        state = "".join(word.capitalize() for word in group.state.name.split("_")).replace("Rebalancing", "Rebalance")
        return {"state": state, "count": len(group.members)}

    def delete_group(self, r):
        self.admin.delete_consumer_groups([r["group"]])[r["group"]].result(TIMEOUT)

    def join(self, r):
        return Member(
            r["topic"],
            self.consumer(
                **{
                    "group.id": r["group"],
                    "auto.offset.reset": "earliest",
                    "heartbeat.interval.ms": HEARTBEAT_MS,
                    "session.timeout.ms": SESSION_MS,
                    "max.poll.interval.ms": REBALANCE_MS,
                }
            ),
        )


class Member:
    def __init__(self, topic, consumer):
        self.topic = topic
        self.consumer = consumer
        consumer.subscribe([topic])

    def poll(self, r):
        first = self.consumer.poll(r["waitMillis"] / 1000)
        if first is None:
            return {"records": []}
        more = self.consumer.consume(r["count"] - 1, 0) if r["count"] > 1 else []
        return {"records": [encode_message(m) for m in [first, *more]]}

    def assignment(self, _):
        return {"partitions": [p.partition for p in self.consumer.assignment()]}

    def commit(self, _):
        try:
            self.consumer.commit(asynchronous=False)
        except KafkaException as e:
            if e.args[0].code() != KafkaError._NO_OFFSET:  # nothing was read since the last commit
                raise

    def seek(self, r):
        self.consumer.seek(TopicPartition(self.topic, r["partition"], r["offset"]))

    def pause(self, r):
        self.consumer.pause([TopicPartition(self.topic, r["partition"])])

    def resume(self, r):
        self.consumer.resume([TopicPartition(self.topic, r["partition"])])

    def leave(self, _):
        self.consumer.close()


def take(consumer, count):
    records = []
    while len(records) < count:
        messages = consumer.consume(count - len(records), TIMEOUT)
        if not messages:
            raise TimeoutError(f"read {len(records)} of {count} records")
        records += map(encode_message, messages)
    return records


if __name__ == "__main__":
    serve(Driver(sys.argv[1]))

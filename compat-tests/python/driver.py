"""librdkafka, driven by the tests: reads requests from standard input and answers on standard output.

One JSON object a line; clients.Request and clients.Response in ../clients/driver.go describe them.
"""

import base64
import json
import sys
import traceback

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic, OffsetSpec

TIMEOUT = 60  # seconds; far above what any operation needs
MAX_BYTES = 8 << 20
EARLIEST, LATEST, NO_OFFSET = -2, -1, -1


def encode(b):
    return None if b is None else base64.b64encode(b).decode()


def decode(s):
    return None if s is None else base64.b64decode(s)


def to_record(message):
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
        self.admin = AdminClient(self.config)

    def consumer(self, **config):
        return Consumer(self.config | {"enable.auto.commit": False, "fetch.message.max.bytes": MAX_BYTES} | config)

    def create_topic(self, r):
        topic = NewTopic(r["topic"], num_partitions=r["partitions"], config=r["configs"])
        self.admin.create_topics([topic])[r["topic"]].result(TIMEOUT)
        return {}

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
                headers=[(h["key"], decode(h["value"])) for h in record["headers"] or []],
                on_delivery=on_delivery(i),
            )
        producer.flush(TIMEOUT)
        offsets = [delivered.get(i, KafkaError(KafkaError._TIMED_OUT)) for i in range(len(r["records"]))]
        for offset in offsets:
            if isinstance(offset, KafkaError):
                raise KafkaException(offset)
        return {"offsets": offsets}

    def list_offsets(self, r, timestamp):
        spec = {EARLIEST: OffsetSpec.earliest(), LATEST: OffsetSpec.latest()}
        spec = spec.get(timestamp) or OffsetSpec.for_timestamp(timestamp)
        request = {TopicPartition(r["topic"], p): spec for p in range(r["partitions"])}
        futures = self.admin.list_offsets(request, request_timeout=TIMEOUT)
        found = {partition.partition: future.result() for partition, future in futures.items()}
        return [found[p].offset for p in range(r["partitions"])]

    def offsets(self, r):
        return {"offsets": self.list_offsets(r, r["timestamp"])}

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
                starts.append(TopicPartition(p.topic, p.partition, start))
                remaining += high - start
        consumer.assign(starts)
        records = self.take(consumer, remaining)
        consumer.close()
        return {"records": records}

    def read_group(self, r):
        consumer = self.consumer(**{"group.id": r["group"], "auto.offset.reset": "earliest"})
        consumer.subscribe([r["topic"]])
        records = self.take(consumer, r["count"])
        following = {x["partition"]: x["offset"] + 1 for x in records}
        offsets = [TopicPartition(r["topic"], p, o) for p, o in following.items()]
        consumer.commit(offsets=offsets, asynchronous=False)
        consumer.close()
        return {"records": records}

    @staticmethod
    def take(consumer, count):
        records = []
        while len(records) < count:
            messages = consumer.consume(count - len(records), TIMEOUT)
            if not messages:
                raise TimeoutError(f"read {len(records)} of {count} records")
            records += map(to_record, messages)
        return records


def main():
    driver = Driver(sys.argv[1])
    operations = {
        "createTopic": driver.create_topic,
        "produce": driver.produce,
        "offsets": driver.offsets,
        "read": driver.read,
        "readGroup": driver.read_group,
    }
    for line in sys.stdin:
        request = json.loads(line)
        try:
            response = operations[request["op"]](request)
        except Exception:
            response = {"error": traceback.format_exc()}
        print(json.dumps(response), flush=True)


main()

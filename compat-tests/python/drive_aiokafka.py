"""aiokafka, driven by the tests; see driver.py."""

import asyncio
import sys
import threading

import aiokafka
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import for_code

from driver import (
    EARLIEST,
    HEARTBEAT_MS,
    LATEST,
    MAX_BYTES,
    NO_OFFSET,
    REBALANCE_MS,
    SESSION_MS,
    TIMEOUT,
    Unsupported,
    decode,
    decode_headers,
    encode_record,
    serve,
)


class Driver:
    def __init__(self, bootstrap):
        self.bootstrap = bootstrap.split(",")
        self.started_admin = None

    async def admin(self):
        """The admin client, which can only be started by the event loop."""
        if self.started_admin is None:
            self.started_admin = AIOKafkaAdminClient(bootstrap_servers=self.bootstrap)
            await self.started_admin.start()
        return self.started_admin

    async def version(self, _):
        return {"version": aiokafka.__version__, "codecs": ["none", "gzip", "snappy", "lz4", "zstd"]}

    def consumer(self, **config):
        return AIOKafkaConsumer(
            bootstrap_servers=self.bootstrap,
            enable_auto_commit=False,
            max_partition_fetch_bytes=MAX_BYTES,
            auto_offset_reset="earliest",
            **config,
        )

    async def produce(self, r):
        async with AIOKafkaProducer(
            bootstrap_servers=self.bootstrap,
            compression_type=None if r["codec"] == "none" else r["codec"],
            enable_idempotence=True,
            max_request_size=MAX_BYTES,
        ) as producer:
            futures = [
                await producer.send(
                    r["topic"],
                    partition=record["partition"],
                    timestamp_ms=record["timestamp"],
                    key=decode(record["key"]),
                    value=decode(record["value"]),
                    headers=decode_headers(record),
                )
                for record in r["records"]
            ]
            return {"offsets": [(await future).offset for future in futures]}

    async def offsets(self, r):
        partitions = [TopicPartition(r["topic"], p) for p in range(r["partitions"])]
        async with self.consumer() as consumer:
            if r["timestamp"] == EARLIEST:
                found = await consumer.beginning_offsets(partitions)
            elif r["timestamp"] == LATEST:
                found = await consumer.end_offsets(partitions)
            else:
                found = await offsets_for_times(consumer, partitions, r["timestamp"])
        return {"offsets": [found.get(p, NO_OFFSET) for p in partitions]}

    async def read(self, r):
        partitions = [TopicPartition(r["topic"], p) for p in range(r["partitions"])]
        async with self.consumer() as consumer:
            if r["timestamp"] == EARLIEST:
                starts = await consumer.beginning_offsets(partitions)
            else:
                starts = await offsets_for_times(consumer, partitions, r["timestamp"])
            ends = await consumer.end_offsets(partitions)
            consumer.assign(list(starts))
            for p, offset in starts.items():
                consumer.seek(p, offset)
            return {"records": await take(consumer, sum(ends[p] - offset for p, offset in starts.items()))}

    async def read_group(self, r):
        async with self.consumer(group_id=r["group"]) as consumer:
            consumer.subscribe([r["topic"]])
            records = await take(consumer, r["count"])
            await consumer.commit()
            return {"records": records}

    async def create_topic(self, r):
        topic = NewTopic(r["topic"], r["partitions"], 1, topic_configs=r.get("configs", {}))
        response = await (await self.admin()).create_topics([topic])
        for name, code, message in response.topic_errors:
            require_ok(code, name, message)

    async def partition_count(self, r):
        # All topics, since one that is asked for by its name is created.
        topics = {t["topic"]: t for t in await (await self.admin()).describe_topics()}
        return {"count": len(topics[r["topic"]]["partitions"])}

    async def create_partitions(self, r):
        await (await self.admin()).create_partitions({r["topic"]: NewPartitions(r["count"])})

    async def topic_configs(self, r):
        resource = ConfigResource(ConfigResourceType.TOPIC, r["topic"])
        [response] = await (await self.admin()).describe_configs([resource])
        [(code, message, _, name, configs)] = response.resources
        require_ok(code, name, message)
        return {"configs": {config[0]: config[1] for config in configs if config[1] is not None}}

    async def alter_topic_config(self, r):
        # The client has no incremental alteration: what is not named goes back to its default.
        configs = {"retention.ms": "-1"} | r["configs"]
        [response] = await (await self.admin()).alter_configs(
            [ConfigResource(ConfigResourceType.TOPIC, r["topic"], configs)]
        )
        [(code, message, _, name)] = response.resources
        require_ok(code, name, message)

    async def delete_topic(self, r):
        response = await (await self.admin()).delete_topics([r["topic"]])
        for name, code in response.topic_error_codes:
            require_ok(code, name)

    async def groups(self, _):
        return {"groups": [group[0] for group in await (await self.admin()).list_consumer_groups()]}

    async def describe_group(self, r):
        [response] = await (await self.admin()).describe_consumer_groups([r["group"]])
        [(code, name, state, _, _, members, *_)] = response.groups
        require_ok(code, name)
        return {"state": state, "count": len(members)}

    async def delete_group(self, _):
        raise Unsupported

    async def join(self, r):
        consumer = self.consumer(
            group_id=r["group"],
            heartbeat_interval_ms=HEARTBEAT_MS,
            session_timeout_ms=SESSION_MS,
            rebalance_timeout_ms=REBALANCE_MS,
        )
        await consumer.start()  # which would wait for the assignment, were there a subscription already
        consumer.subscribe([r["topic"]])
        return Member(r["topic"], consumer)


class Member:
    def __init__(self, topic, consumer):
        self.topic = topic
        self.consumer = consumer

    async def poll(self, r):
        return {"records": await poll(self.consumer, r["waitMillis"], r["count"])}

    async def assignment(self, _):
        return {"partitions": [p.partition for p in self.consumer.assignment()]}

    async def commit(self, _):
        await self.consumer.commit()

    async def seek(self, r):
        self.consumer.seek(TopicPartition(self.topic, r["partition"]), r["offset"])

    async def pause(self, r):
        self.consumer.pause(TopicPartition(self.topic, r["partition"]))

    async def resume(self, r):
        self.consumer.resume(TopicPartition(self.topic, r["partition"]))

    async def leave(self, _):
        await self.consumer.stop()


async def offsets_for_times(consumer, partitions, timestamp):
    found = await consumer.offsets_for_times({p: timestamp for p in partitions})
    return {p: at.offset for p, at in found.items() if at is not None}


async def poll(consumer, wait_ms, count):
    batches = await consumer.getmany(timeout_ms=wait_ms, max_records=count)
    return [encode_record(record) for batch in batches.values() for record in batch]


async def take(consumer, count):
    records = []
    while len(records) < count:
        more = await poll(consumer, TIMEOUT * 1000, count - len(records))
        if not more:
            raise TimeoutError(f"read {len(records)} of {count} records")
        records += more
    return records


def require_ok(code, name, message=None):
    if code:
        raise for_code(code)(f"{name}: {message}")


def main():
    loop = asyncio.new_event_loop()
    # The loop goes on between requests, since the members' heartbeats run on it.
    threading.Thread(target=loop.run_forever, daemon=True).start()
    serve(Driver(sys.argv[1]), lambda coroutine: asyncio.run_coroutine_threadsafe(coroutine, loop).result())


main()

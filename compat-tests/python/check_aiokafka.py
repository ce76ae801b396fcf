"""What AIOKafkaAdminClient of aiokafka has, and what its other clients have of their own; see checks.py."""

import asyncio
import sys

import aiokafka
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic, RecordsToDelete
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from checks import equal, refused, run
from driver import TIMEOUT


class Cluster:
    def __init__(self, bootstrap):
        self.config = {"bootstrap_servers": bootstrap.split(",")}

    def run(self, check):
        """Runs a check, a coroutine function, with an admin client."""

        async def checked():
            admin = AIOKafkaAdminClient(**self.config)
            await admin.start()
            try:
                await asyncio.wait_for(check(self, admin), TIMEOUT)
            finally:
                await admin.close()

        asyncio.run(checked())

    async def fill(self, admin, topic, count):
        """Makes a topic of one partition with count records."""
        response = await admin.create_topics([NewTopic(topic, 1, 1)])
        equal([code for _, code, _ in response.topic_errors], [0])
        async with self.producer() as producer:
            for i in range(count):
                await producer.send_and_wait(topic, str(i).encode(), partition=0)
        return TopicPartition(topic, 0)

    def producer(self):
        return AIOKafkaProducer(**self.config)

    def consumer(self, *topics, **config):
        return AIOKafkaConsumer(
            *topics, **self.config, auto_offset_reset="earliest", enable_auto_commit=False, **config
        )


async def describe(c, admin):
    """admin client: describe_cluster, list_topics, describe_configs of a broker"""
    cluster = await admin.describe_cluster()
    assert cluster["cluster_id"], "no cluster id"
    assert cluster["controller_id"] in [b["node_id"] for b in cluster["brokers"]], "the controller is no broker"
    await admin.list_topics()
    broker = ConfigResource(ConfigResourceType.BROKER, str(cluster["controller_id"]))
    [response] = await admin.describe_configs([broker])
    [(code, _, _, _, configs)] = response.resources
    equal(code, 0)
    assert "log.retention.ms" in [config[0] for config in configs], "a broker has no log.retention.ms"


async def delete_records(c, admin):
    """admin client: delete_records"""
    p = await c.fill(admin, "aio-records", 10)
    equal(await admin.delete_records({p: RecordsToDelete(4)}), {p: 4})
    async with c.consumer() as consumer:
        equal(await consumer.beginning_offsets([p]), {p: 4})
    with refused("OffsetOutOfRangeError"):
        await admin.delete_records({p: RecordsToDelete(11)})


async def group_offsets(c, admin):
    """admin client: list_consumer_group_offsets"""
    p = await c.fill(admin, "aio-committed", 10)
    async with c.consumer("aio-committed", group_id="aio-committed-group") as consumer:
        await consumer.commit({p: (3, "by the member")})
    committed = await admin.list_consumer_group_offsets("aio-committed-group")
    equal({p: (o.offset, o.metadata) for p, o in committed.items()}, {p: (3, "by the member")})


async def batches(c, admin):
    """producer: batches of one's own, with a record that has neither key nor value"""
    p = await c.fill(admin, "aio-batches", 0)
    async with c.producer() as producer:
        batch = producer.create_batch()
        batch.append(key=None, value=None, timestamp=1)
        batch.append(key=b"", value=b"", timestamp=2)
        equal((await (await producer.send_batch(batch, p.topic, partition=p.partition))).offset, 0)
    async with c.consumer("aio-batches") as consumer:
        records = [await consumer.getone() for _ in range(2)]
    equal([(r.key, r.value, r.timestamp) for r in records], [(None, None, 1), (b"", b"", 2)])


async def pattern(c, admin):
    """consumer: a subscription by a pattern, seek_to_committed"""
    p = await c.fill(admin, "aio-pattern", 10)
    async with c.consumer(group_id="aio-pattern-group") as consumer:
        consumer.subscribe(pattern="^aio-pat.*n$")
        equal((await consumer.getone()).offset, 0)
        await consumer.commit()
        for offset in range(1, 10):
            equal((await consumer.getone()).offset, offset)
        await consumer.seek_to_committed(p)
        equal((await consumer.getone()).offset, 1)


def synchronous(check):
    """The check as a function that run can call."""

    def call(cluster):
        cluster.run(check)

    call.__doc__ = check.__doc__
    return call


run(
    aiokafka.__version__,
    [synchronous(check) for check in (describe, delete_records, group_offsets, batches, pattern)],
    Cluster(sys.argv[1]),
)

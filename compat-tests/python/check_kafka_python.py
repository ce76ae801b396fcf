"""What KafkaAdminClient of kafka-python has, and its old protocol versions; see checks.py."""

import sys

import kafka
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import (
    ACLFilter,
    ACLOperation,
    ACLPermissionType,
    MemberToRemove,
    OffsetSpec,
    OffsetTimestamp,
    ResourcePattern,
    ResourceType,
)
from kafka.errors import for_code
from kafka.structs import OffsetAndMetadata

from checks import equal, refused, run, soon
from driver import TIMEOUT

FIRST_TIMESTAMP = 1_700_000_000_000


class Cluster:
    def __init__(self, bootstrap):
        self.config = {"bootstrap_servers": bootstrap.split(",")}
        self.admin = KafkaAdminClient(**self.config)

    def fill(self, topic, count, **config):
        """Makes a topic of two partitions with count records in one of them, each a second after the one before."""
        self.admin.create_topics({topic: {"num_partitions": 2}}, wait_for_metadata=True)
        producer = KafkaProducer(**self.config, **config)
        for i in range(count):
            producer.send(topic, b"value", partition=0, timestamp_ms=FIRST_TIMESTAMP + i * 1000).get(TIMEOUT)
        producer.close()
        return TopicPartition(topic, 0)

    def consumer(self, **config):
        return KafkaConsumer(**self.config, auto_offset_reset="earliest", enable_auto_commit=False, **config)

    def member(self, topic, group, **config):
        """A member of the group that has its assignment."""
        consumer = self.consumer(group_id=group, **config)
        consumer.partitions_for_topic(topic)  # first, for the reason that subscribe in drive_kafka_python.py has
        consumer.subscribe([topic])
        soon(lambda: bool(consumer.poll(100)), True)
        return consumer


def describe_cluster(c):
    """admin client: describe_cluster, list_topics, describe_features"""
    cluster = c.admin.describe_cluster()
    assert cluster["cluster_id"], "no cluster id"
    assert cluster["controller_id"] in [b["broker_id"] for b in cluster["brokers"]], "the controller is no broker"
    c.admin.list_topics()
    c.admin.describe_features()


def topic_partitions(c):
    """admin client: describe_topic_partitions in pages"""
    c.fill("kp-pages", 0)
    first = c.admin.describe_topic_partitions(["kp-pages"], response_partition_limit=1)
    equal([p["partition_index"] for p in first["topics"][0]["partitions"]], [0])
    equal(first["next_cursor"], {"topic_name": "kp-pages", "partition_index": 1})
    second = c.admin.describe_topic_partitions(["kp-pages"], 1, first["next_cursor"])
    equal([p["partition_index"] for p in second["topics"][0]["partitions"]], [1])
    equal(second["next_cursor"], None)


def partition_offsets(c):
    """admin client: list_partition_offsets, delete_records"""
    p = c.fill("kp-offsets", 10)

    def at(spec):
        found = c.admin.list_partition_offsets({p: spec})[p]
        return found.offset, found.timestamp

    equal(at(OffsetSpec.EARLIEST), (0, -1))
    equal(at(OffsetSpec.LATEST), (10, -1))
    equal(at(OffsetSpec.MAX_TIMESTAMP), (9, FIRST_TIMESTAMP + 9000))
    equal(at(OffsetSpec.EARLIEST_LOCAL), (0, -1))
    equal(at(OffsetSpec.LATEST_TIERED), (-1, -1))
    equal(at(FIRST_TIMESTAMP + 4001), (5, FIRST_TIMESTAMP + 5000))
    equal(c.admin.delete_records({p: 4})[p]["low_watermark"], 4)
    equal(at(OffsetSpec.EARLIEST), (4, -1))
    with refused("OffsetOutOfRangeError"):
        c.admin.delete_records({p: 11})


def group_offsets(c):
    """admin client: list_, alter_, reset_ and delete_group_offsets"""
    p, group = c.fill("kp-committed", 10), "kp-committed-group"

    def committed():
        return {p: (o.offset, o.metadata) for p, o in c.admin.list_group_offsets({group: None})[group].items()}

    def altered(offset):
        return c.admin.alter_group_offsets(group, {p: OffsetAndMetadata(offset, "altered", -1)})[p].__name__

    member = c.member("kp-committed", group)
    member.commit({p: OffsetAndMetadata(3, "by the member", -1)})
    equal(committed(), {p: (3, "by the member")})
    equal(altered(7), "UnknownMemberIdError")
    equal(c.admin.delete_group_offsets(group, [p])[p].__name__, "GroupSubscribedToTopicError")
    member.close()
    equal(altered(7), "NoError")
    equal(committed(), {p: (7, "altered")})
    for target, offset in (OffsetSpec.EARLIEST, 0), (OffsetTimestamp(FIRST_TIMESTAMP + 4001), 5), (99, 10):
        equal(c.admin.reset_group_offsets(group, {p: target})[p]["offset"], offset)
        equal(committed()[p][0], offset)
    equal(c.admin.delete_group_offsets(group, [p])[p].__name__, "NoError")
    equal(committed(), {})
    with refused("GroupIdNotFoundError"):
        c.admin.delete_group_offsets("kp-no-group", [p])


def group_members(c):
    """admin client: list_groups, describe_groups and remove_group_members of a static member"""
    c.fill("kp-members", 10)
    group = "kp-members-group"

    def listed(**filters):
        return [g["group_state"] for g in c.admin.list_groups(**filters) if g["group_id"] == group]

    member = c.member("kp-members", group, group_instance_id="static")
    equal(listed(states_filter=["Stable"], types_filter=["classic"]), ["Stable"])
    equal(listed(types_filter=["consumer"]), [])
    [one] = c.admin.describe_groups([group])[group]["members"]
    equal(one["group_instance_id"], "static")
    member.close()  # a static member does not leave
    equal(listed(), ["Stable"])
    removed = c.admin.remove_group_members(group, [MemberToRemove(group_instance_id="static", reason="is gone")])
    equal([error.__name__ for error in removed.values()], ["NoError"])
    equal(listed(), ["Empty"])
    equal(c.admin.delete_groups([group]), {group: "OK"})


def producers(c):
    """admin client: describe_producers"""
    p = c.fill("kp-producers", 10, enable_idempotence=True)
    [producer] = c.admin.describe_producers([p])[p].active_producers
    equal((producer.producer_epoch, producer.last_sequence), (0, 9))
    # Of the last record in Kafka, of its commit in StreamHouse.
    assert producer.last_timestamp >= FIRST_TIMESTAMP + 9000, producer.last_timestamp


def log_dirs(c):
    """admin client: describe_log_dirs"""
    c.fill("kp-dirs", 10)
    sizes = [
        (partition["partition_index"], partition["partition_size"] > 0)
        for broker in c.admin.describe_log_dirs({"kp-dirs": [0, 1]})
        for directory in broker["log_dirs"]
        for topic in directory["topics"]
        for partition in topic["partitions"]
    ]
    equal(sorted(sizes), [(0, True), (1, False)])


def replicas(c):
    """admin client: list_ and alter_partition_reassignments, elect_leaders"""
    p = c.fill("kp-replicas", 0)
    equal(c.admin.list_partition_reassignments(), {})
    equal(c.admin.alter_partition_reassignments({p: None})[p].__name__, "NoReassignmentInProgressError")
    preferred = 0
    [topic] = c.admin.elect_leaders(preferred, {"kp-replicas": [0]}).replica_election_results
    equal([for_code(e.error_code).__name__ for e in topic.partition_result], ["ElectionNotNeededError"])


def acls(c):
    """admin client: ACLs of a cluster without an authorizer"""
    topic = ResourcePattern(ResourceType.TOPIC, "t")
    everything = ACLFilter(None, None, ACLOperation.ANY, ACLPermissionType.ANY, topic)
    with refused("SecurityDisabledError"):
        c.admin.describe_acls(everything)


def old_versions(c):
    """protocol versions of Kafka 0.11, 1.0, 2.0, 2.5, 3.0 and 4.0"""
    c.fill("kp-versions", 0)
    for version in (0, 11), (1, 0), (2, 0), (2, 5), (3, 0), (4, 0):
        producer = KafkaProducer(**c.config, api_version=version)
        sent = producer.send("kp-versions", str(version).encode(), partition=0).get(TIMEOUT)
        producer.close()
        consumer = c.member("kp-versions", f"kp-versions-{version[0]}-{version[1]}", api_version=version)
        p = TopicPartition("kp-versions", 0)
        consumer.seek(p, sent.offset)
        [record] = consumer.poll(TIMEOUT * 1000, max_records=1)[p]
        equal(record.value, str(version).encode())
        consumer.commit()
        equal(consumer.committed(p), sent.offset + 1)
        consumer.close()


run(
    kafka.__version__,
    [
        describe_cluster,
        topic_partitions,
        partition_offsets,
        group_offsets,
        group_members,
        producers,
        log_dirs,
        replicas,
        acls,
        old_versions,
    ],
    Cluster(sys.argv[1]),
)

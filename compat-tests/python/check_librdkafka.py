"""What AdminClient of confluent-kafka has, and what its other clients have of their own; see checks.py."""

import sys

from confluent_kafka import (
    Consumer,
    ConsumerGroupState,
    ConsumerGroupTopicPartitions,
    ConsumerGroupType,
    ElectionType,
    IsolationLevel,
    KafkaException,
    Producer,
    TopicCollection,
    TopicPartition,
    murmur2,
)
from confluent_kafka.admin import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ConfigSource,
    NewPartitions,
    NewTopic,
    OffsetSpec,
    ResourcePatternType,
    ResourceType,
)

from checks import equal, refused, run, soon
from drive_librdkafka import VERSION
from driver import HEARTBEAT_MS, TIMEOUT

FIRST_TIMESTAMP = 1_700_000_000_000


class Cluster:
    def __init__(self, bootstrap):
        self.config = {"bootstrap.servers": bootstrap}
        self.admin = AdminClient(self.config)

    def create(self, topic, partitions=1):
        wait(self.admin.create_topics([NewTopic(topic, partitions)]))
        soon(lambda: topic in self.admin.list_topics(timeout=TIMEOUT).topics, True)

    def fill(self, topic, count, partition=0):
        """Makes a topic of two partitions with count records in one of them, each a second after the one before."""
        self.create(topic, 2)
        producer = Producer(self.config)
        for i in range(count):
            producer.produce(topic, b"value", partition=partition, timestamp=FIRST_TIMESTAMP + i * 1000)
        equal(producer.flush(TIMEOUT), 0)

    def member(self, topic, group):
        """A member of the group that has its assignment."""
        consumer = Consumer(self.config | {"group.id": group, "auto.offset.reset": "earliest"})
        consumer.subscribe([topic])
        while consumer.poll(TIMEOUT) is None:
            pass
        return consumer

    def describe(self, topic):
        return wait(self.admin.describe_topics(TopicCollection([topic]), include_authorized_operations=True))

    def configs(self, kind, name):
        return wait(self.admin.describe_configs([ConfigResource(kind, name)]))

    def alter(self, topic, *changes):
        entries = [ConfigEntry(name, value, incremental_operation=op) for op, name, value in changes]
        wait(self.admin.incremental_alter_configs(
            [ConfigResource(ResourceType.TOPIC, topic, incremental_configs=entries)]
        ))


def wait(futures):
    """The result of the one future of an answer."""
    [future] = futures.values()
    return future.result(TIMEOUT)


def describe_cluster(c):
    """admin client: describe_cluster, list_topics, list_groups"""
    cluster = c.admin.describe_cluster(include_authorized_operations=True).result(TIMEOUT)
    assert cluster.cluster_id, "no cluster id"
    assert cluster.controller.id in [node.id for node in cluster.nodes], "the controller is no node"
    allowed = {operation.name for operation in cluster.authorized_operations}
    changes = {"ALTER", "ALTER_CONFIGS", "CREATE"}
    equal(allowed, changes | {"CLUSTER_ACTION", "DESCRIBE", "DESCRIBE_CONFIGS", "IDEMPOTENT_WRITE"})
    metadata = c.admin.list_topics(timeout=TIMEOUT)
    equal(metadata.cluster_id, cluster.cluster_id)
    equal(sorted(metadata.brokers), sorted(node.id for node in cluster.nodes))
    c.admin.list_groups(timeout=TIMEOUT)


def topics(c):
    """admin client: create_topics, describe_topics, create_partitions, delete_topics"""
    wait(c.admin.create_topics([NewTopic("admin-topic", 2)], validate_only=True))
    with refused("UNKNOWN_TOPIC_OR_PART"):
        c.describe("admin-topic")
    c.create("admin-topic", 2)
    with refused("TOPIC_ALREADY_EXISTS"):
        c.create("admin-topic", 2)
    with refused("TOPIC_EXCEPTION"):
        c.create("not/allowed")
    with refused("INVALID_PARTITIONS"):
        c.create("admin-none", 0)
    described = c.describe("admin-topic")
    equal((described.name, described.is_internal, len(described.partitions)), ("admin-topic", False, 2))
    allowed = {operation.name for operation in described.authorized_operations}
    changes = {"ALTER", "ALTER_CONFIGS", "CREATE", "DELETE", "WRITE"}
    equal(allowed, changes | {"DESCRIBE", "DESCRIBE_CONFIGS", "READ"})
    for partition in described.partitions:
        assert partition.leader.id in [node.id for node in partition.replicas], "the leader is no replica"
        assert partition.isr, "no replica is in sync"
    wait(c.admin.create_partitions([NewPartitions("admin-topic", 4)]))
    soon(lambda: len(c.describe("admin-topic").partitions), 4)
    with refused("INVALID_PARTITIONS"):
        wait(c.admin.create_partitions([NewPartitions("admin-topic", 3)]))
    wait(c.admin.delete_topics(["admin-topic"]))
    with refused("UNKNOWN_TOPIC_OR_PART"):
        wait(c.admin.delete_topics(["admin-topic"]))


def configs(c):
    """admin client: describe_configs, incremental_alter_configs, alter_configs"""
    c.create("admin-configs")

    def of_topic(name):
        entry = c.configs(ResourceType.TOPIC, "admin-configs")[name]
        return entry.value, ConfigSource(entry.source), entry.is_default

    changed = ConfigSource.DYNAMIC_TOPIC_CONFIG
    unchanged = of_topic("retention.ms")
    equal(unchanged, ("604800000", ConfigSource.DEFAULT_CONFIG, True))
    c.alter(
        "admin-configs",
        (AlterConfigOpType.SET, "retention.ms", "3600000"),
        (AlterConfigOpType.APPEND, "cleanup.policy", "compact"),
    )
    soon(lambda: of_topic("retention.ms"), ("3600000", changed, False))
    soon(lambda: of_topic("cleanup.policy"), ("delete,compact", changed, False))
    c.alter(
        "admin-configs",
        (AlterConfigOpType.DELETE, "retention.ms", None),
        (AlterConfigOpType.SUBTRACT, "cleanup.policy", "delete"),
    )
    soon(lambda: of_topic("retention.ms"), unchanged)
    soon(lambda: of_topic("cleanup.policy"), ("compact", changed, False))
    for name, value in ("no.such.config", "1"), ("retention.ms", "soon"):
        with refused("INVALID_CONFIG"):
            c.alter("admin-configs", (AlterConfigOpType.SET, name, value))
    wait(c.admin.alter_configs([ConfigResource(ResourceType.TOPIC, "admin-configs", {"retention.ms": "7200000"})]))
    soon(lambda: of_topic("retention.ms"), ("7200000", changed, False))
    soon(lambda: of_topic("cleanup.policy"), ("delete", ConfigSource.DEFAULT_CONFIG, True))
    broker = str(next(iter(c.admin.list_topics(timeout=TIMEOUT).brokers)))
    assert "log.retention.ms" in c.configs(ResourceType.BROKER, broker), "a broker has no log.retention.ms"


def list_offsets(c):
    """admin client: list_offsets"""
    c.fill("admin-offsets", 10)

    def at(spec, partition=0, **options):
        result = wait(c.admin.list_offsets({TopicPartition("admin-offsets", partition): spec}, **options))
        return result.offset, result.timestamp

    equal(at(OffsetSpec.earliest()), (0, -1))
    equal(at(OffsetSpec.latest()), (10, -1))
    equal(at(OffsetSpec.max_timestamp()), (9, FIRST_TIMESTAMP + 9000))
    equal(at(OffsetSpec.for_timestamp(FIRST_TIMESTAMP + 4001)), (5, FIRST_TIMESTAMP + 5000))
    equal(at(OffsetSpec.for_timestamp(FIRST_TIMESTAMP + 9001)), (-1, -1))
    equal(at(OffsetSpec.latest(), isolation_level=IsolationLevel.READ_COMMITTED), (10, -1))
    equal(at(OffsetSpec.max_timestamp(), partition=1), (-1, -1))


def delete_records(c):
    """admin client: delete_records"""
    c.fill("admin-records", 10)

    def delete(offset, partition=0):
        return wait(c.admin.delete_records([TopicPartition("admin-records", partition, offset)])).low_watermark

    equal(delete(4), 4)
    equal(delete(2), 4)  # the start of a log never goes back
    with refused("OFFSET_OUT_OF_RANGE"):
        delete(11)
    earliest = wait(c.admin.list_offsets({TopicPartition("admin-records", 0): OffsetSpec.earliest()}))
    equal(earliest.offset, 4)
    equal(delete(-1), 10)  # all


def consumer_groups(c):
    """admin client: list_, describe_ and delete_consumer_groups"""
    c.fill("admin-members", 10)
    group = "admin-members-group"

    def listed(**filters):
        return [g.state for g in c.admin.list_consumer_groups(**filters).result(TIMEOUT).valid if g.group_id == group]

    def described():
        return wait(c.admin.describe_consumer_groups([group], include_authorized_operations=True))

    member = c.member("admin-members", group)
    equal(listed(), [ConsumerGroupState.STABLE])
    equal(listed(states={ConsumerGroupState.STABLE}), [ConsumerGroupState.STABLE])
    equal(listed(states={ConsumerGroupState.EMPTY}), [])
    equal(listed(types={ConsumerGroupType.CLASSIC}), [ConsumerGroupState.STABLE])
    equal(listed(types={ConsumerGroupType.CONSUMER}), [])
    g = described()
    equal((g.state, g.type, g.partition_assignor), (ConsumerGroupState.STABLE, ConsumerGroupType.CLASSIC, "range"))
    allowed = {operation.name for operation in g.authorized_operations}
    equal(allowed, {"ALTER_CONFIGS", "DELETE", "DESCRIBE", "DESCRIBE_CONFIGS", "READ"})
    [one] = g.members
    equal(one.client_id, "rdkafka")
    assigned = [(p.topic, p.partition) for p in one.assignment.topic_partitions]
    equal(sorted(assigned), [("admin-members", 0), ("admin-members", 1)])
    with refused("NON_EMPTY_GROUP"):
        wait(c.admin.delete_consumer_groups([group]))
    member.close()
    equal(described().state, ConsumerGroupState.EMPTY)
    wait(c.admin.delete_consumer_groups([group]))
    equal(listed(), [])
    with refused("GROUP_ID_NOT_FOUND"):
        wait(c.admin.delete_consumer_groups([group]))


def consumer_group_offsets(c):
    """admin client: list_ and alter_consumer_group_offsets"""
    c.fill("admin-committed", 10)
    group = "admin-committed-group"

    def offsets():
        request = [ConsumerGroupTopicPartitions(group)]
        answer = wait(c.admin.list_consumer_group_offsets(request, require_stable=True))
        return {p.partition: (p.offset, p.metadata) for p in answer.topic_partitions}

    def alter(offset):
        partition = TopicPartition("admin-committed", 0, offset, "altered")
        request = [ConsumerGroupTopicPartitions(group, [partition])]
        [result] = wait(c.admin.alter_consumer_group_offsets(request)).topic_partitions
        if result.error:
            raise KafkaException(result.error)

    member = c.member("admin-committed", group)
    member.commit(offsets=[TopicPartition("admin-committed", 0, 3, "by the member")], asynchronous=False)
    equal(offsets(), {0: (3, "by the member")})
    with refused("UNKNOWN_MEMBER_ID"):
        alter(7)
    member.close()
    alter(7)
    equal(offsets()[0], (7, "altered"))
    member = Consumer(c.config | {"group.id": group, "enable.auto.commit": False})
    member.subscribe(["admin-committed"])
    equal(member.poll(TIMEOUT).offset(), 7)
    member.close()


def elect_leaders(c):
    """admin client: elect_leaders"""
    c.create("admin-election", 1)
    partitions = [TopicPartition("admin-election", p) for p in (0, 1)]
    results = c.admin.elect_leaders(ElectionType.PREFERRED, partitions).result(TIMEOUT)
    names = {p.partition: error and error.name() for p, error in results.items()}
    equal(names, {0: "ELECTION_NOT_NEEDED", 1: "UNKNOWN_TOPIC_OR_PART"})


def acls(c):
    """admin client: ACLs of a cluster without an authorizer"""
    everyone = "User:everyone"
    binding = (ResourceType.TOPIC, "t", ResourcePatternType.LITERAL, everyone, "*", AclOperation.READ)
    allowed = AclBinding(*binding, AclPermissionType.ALLOW)
    anything = AclBindingFilter(*binding, AclPermissionType.ANY)
    with refused("SECURITY_DISABLED"):
        wait(c.admin.create_acls([allowed]))
    equal(c.admin.describe_acls(anything).result(TIMEOUT), [])  # the client keeps the refusal to itself
    with refused("SECURITY_DISABLED"):
        wait(c.admin.delete_acls([anything]))


def scram_credentials(c):
    """admin client: describe_user_scram_credentials where there are none"""
    equal(c.admin.describe_user_scram_credentials().result(TIMEOUT), {})
    with refused("RESOURCE_NOT_FOUND"):
        wait(c.admin.describe_user_scram_credentials(["nobody"]))


def producer_acknowledgements(c):
    """producer: acks=1, acks=0, and a partition chosen by the key"""
    c.create("rd-acks", 8)
    partition = murmur2(b"key", 8)
    latest = {TopicPartition("rd-acks", partition): OffsetSpec.latest()}
    # Without acks, a record is lost that comes before the partition's leader, or whose producer ends too soon.
    for sent, acks in (1, 1), (2, 0):
        producer = Producer(c.config | {"acks": acks, "partitioner": "murmur2_random"})
        producer.produce("rd-acks", b"value", b"key")
        equal(producer.flush(TIMEOUT), 0)
        soon(lambda: wait(c.admin.list_offsets(latest)).offset, sent)


def positions(c):
    """consumer: stored offsets, positions, committed offsets, watermarks"""
    c.fill("rd-positions", 10)
    p = TopicPartition("rd-positions", 0)
    consumer = Consumer(c.config | {
        "group.id": "rd-positions-group",
        "auto.offset.reset": "earliest",
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
    })
    consumer.assign([p])
    equal([message.offset() for message in consumer.consume(5, TIMEOUT)], [0, 1, 2, 3, 4])
    equal([p.offset for p in consumer.position([p])], [5])
    consumer.store_offsets(offsets=[TopicPartition(p.topic, p.partition, 3, "stored")])
    consumer.commit(asynchronous=False)
    [committed] = consumer.committed([p], timeout=TIMEOUT)
    equal((committed.offset, committed.metadata), (3, "stored"))
    equal(consumer.get_watermark_offsets(p, timeout=TIMEOUT), (0, 10))
    consumer.close()


def automatic_commits(c):
    """consumer: automatic commits, the last one at its end"""
    c.fill("rd-auto", 10)
    group = "rd-auto-group"
    for offset in 0, 1, 2:
        member = Consumer(c.config | {"group.id": group, "auto.offset.reset": "earliest"})
        member.subscribe(["rd-auto"])
        equal(member.poll(TIMEOUT).offset(), offset)
        member.close()


def cooperative_rebalance(c):
    """group: cooperative-sticky, with a rebalance in the middle"""
    c.create("rd-cooperative", 4)
    revoked = []

    def member(name):
        consumer = Consumer(c.config | {
            "group.id": "rd-cooperative-group",
            "client.id": name,
            "partition.assignment.strategy": "cooperative-sticky",
            "heartbeat.interval.ms": HEARTBEAT_MS,
        })
        consumer.subscribe(["rd-cooperative"], on_revoke=lambda _, lost: revoked.append((name, len(lost))))
        return consumer

    def owned(*consumers):
        for consumer in consumers:
            consumer.poll(0.05)
        return [len(consumer.assignment()) for consumer in consumers]

    a = member("a")
    soon(lambda: owned(a), [4])
    b = member("b")
    soon(lambda: owned(a, b), [2, 2])
    equal(revoked, [("a", 2)])  # it keeps the others throughout
    b.close()
    soon(lambda: owned(a), [4])
    equal(revoked, [("a", 2), ("b", 2)])
    a.close()


def static_member(c):
    """group: a static member restarts without a rebalance"""
    c.create("rd-static", 2)
    group = "rd-static-group"
    config = c.config | {"group.id": group, "heartbeat.interval.ms": HEARTBEAT_MS, "session.timeout.ms": 30_000}

    def member(instance, revoked):
        consumer = Consumer(config | {"group.instance.id": instance})
        consumer.subscribe(["rd-static"], on_revoke=lambda _, lost: revoked.append(len(lost)))
        return consumer

    def owned(*consumers):
        for consumer in consumers:
            consumer.poll(0.05)
        return [len(consumer.assignment()) for consumer in consumers]

    revoked = []
    a, b = member("a", revoked), member("b", [])
    soon(lambda: owned(a, b), [1, 1])
    before, _ = a.assignment(), revoked.clear()
    partition = [p.partition for p in b.assignment()]
    b.close()  # a static member does not leave
    b = member("b", [])
    soon(lambda: owned(b), [1])
    equal([p.partition for p in b.assignment()], partition)
    equal((owned(a), a.assignment(), revoked), ([1], before, []))
    a.close()
    b.close()


def consumer_protocol(c):
    """group: the consumer protocol (KIP-848), a regular expression, a rebalance in the middle"""
    c.create("rd-consumer", 4)
    group = "rd-consumer-group"

    def member(topics):
        consumer = Consumer(c.config | {
            "group.id": group,
            "group.protocol": "consumer",
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
        })
        consumer.subscribe([topics])
        return consumer

    def owned(*consumers):
        for consumer in consumers:
            records.extend(m.value() for m in consumer.consume(100, 0.05))
        return [len(consumer.assignment()) for consumer in consumers]

    records = []
    a = member("rd-consumer")
    soon(lambda: owned(a), [4])
    b = member("^rd-consum.r$")
    soon(lambda: owned(a, b), [2, 2])
    producer = Producer(c.config)
    for i in range(40):
        producer.produce("rd-consumer", str(i), partition=i % 4)
    equal(producer.flush(TIMEOUT), 0)
    soon(lambda: (owned(a, b), sorted(map(int, records))), ([2, 2], list(range(40))))
    g = wait(c.admin.describe_consumer_groups([group]))
    equal((g.state, g.type, len(g.members)), (ConsumerGroupState.STABLE, ConsumerGroupType.CONSUMER, 2))
    for consumer in a, b:
        consumer.commit(asynchronous=False)
    b.close()
    soon(lambda: owned(a), [4])
    a.close()
    committed = wait(c.admin.list_consumer_group_offsets([ConsumerGroupTopicPartitions(group)]))
    equal([p.offset for p in committed.topic_partitions], [10, 10, 10, 10])


run(
    VERSION,
    [
        describe_cluster,
        topics,
        configs,
        list_offsets,
        delete_records,
        consumer_groups,
        consumer_group_offsets,
        elect_leaders,
        acls,
        scram_credentials,
        producer_acknowledgements,
        positions,
        automatic_commits,
        cooperative_rebalance,
        static_member,
        consumer_protocol,
    ],
    Cluster(sys.argv[1]),
)

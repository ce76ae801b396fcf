import java.io.PrintWriter;
import java.io.StringWriter;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.TreeSet;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.function.BooleanSupplier;
import java.util.stream.Collectors;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.ConsumerGroupDescription;
import org.apache.kafka.clients.admin.ListGroupsOptions;
import org.apache.kafka.clients.admin.NewPartitions;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.consumer.CommitFailedException;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.CooperativeStickyAssignor;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.RangeAssignor;
import org.apache.kafka.clients.consumer.SubscriptionPattern;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.GroupState;
import org.apache.kafka.common.GroupType;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.errors.InvalidRegularExpression;
import org.apache.kafka.common.errors.RebalanceInProgressException;
import org.apache.kafka.common.errors.UnsupportedAssignorException;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.serialization.StringSerializer;

/**
 * What applications have of the consumer protocol (KIP-848) with Apache Kafka's Java client. Each feature has a topic and a group of its own,
 * and all are shown at once, since they wait for heartbeats most of the time. Prints a line for each: its name, and, after a tab, why it
 * fails, if it does.
 */
public final class ConsumerProtocol {
    private static final Duration TIMEOUT = Duration.ofSeconds(90); // far above what any step needs
    private static final int PARTITIONS = 4;

    private interface Feature {
        void show() throws Exception;
    }

    private final String bootstrap;
    private final Admin admin;
    private final KafkaProducer<String, String> producer;

    private ConsumerProtocol(String bootstrap, Admin admin, KafkaProducer<String, String> producer) {
        this.bootstrap = bootstrap;
        this.admin = admin;
        this.producer = producer;
    }

    public static void main(String[] args) throws Exception {
        Map<String, Object> config = Map.of("bootstrap.servers", args[0]);
        try (Admin admin = Admin.create(config);
                var producer = new KafkaProducer<>(config, new StringSerializer(), new StringSerializer())) {
            ConsumerProtocol protocol = new ConsumerProtocol(args[0], admin, producer);
            Map<String, Feature> features = new LinkedHashMap<>();
            features.put("consumer protocol: rebalance, commit, resume", protocol::comeAndGo);
            features.put("consumer protocol: subscription by pattern", protocol::pattern);
            features.put("consumer protocol: static member restarts", protocol::staticMember);
            features.put("consumer protocol: range assignor", protocol::range);
            features.put("consumer protocol: refusals", protocol::refusals);
            features.put("migration of a group, eager, to the consumer protocol and back",
                    () -> protocol.migrate("eager", RangeAssignor.class));
            features.put("migration of a group, cooperative, to the consumer protocol and back",
                    () -> protocol.migrate("cooperative", CooperativeStickyAssignor.class));
            ExecutorService threads = Executors.newCachedThreadPool();
            Map<String, Future<String>> results = new LinkedHashMap<>();
            features.forEach((name, feature) -> results.put(name, threads.submit(() -> attempt(feature))));
            for (Map.Entry<String, Future<String>> result : results.entrySet()) {
                System.out.println(result.getKey() + result.getValue().get());
            }
            threads.shutdown();
        }
    }

    private static String attempt(Feature feature) {
        try {
            feature.show();
            return "";
        } catch (Throwable e) {
            StringWriter trace = new StringWriter();
            e.printStackTrace(new PrintWriter(trace));
            return "\t" + trace.toString().replace('\n', ' ');
        }
    }

    /** Members come, share, commit and go; the last one finds where the others were. */
    private void comeAndGo() throws Exception {
        Team team = team("come-and-go");
        Member a = team.join(Map.of());
        team.await("a has all", () -> a.owned() == PARTITIONS);
        Member b = team.join(Map.of());
        team.await("they share", () -> a.owned() == 2 && b.owned() == 2);
        team.producesAndConsumes(40);
        ConsumerGroupDescription group = team.describe();
        check(group.type() == GroupType.CONSUMER && group.groupState() == GroupState.STABLE, group);
        check(group.members().size() == 2 && group.partitionAssignor().equals("uniform"), group);
        check(group.members().stream().allMatch(m -> m.memberEpoch().equals(group.groupEpoch())
                && m.assignment().topicPartitions().size() == 2 && m.targetAssignment().equals(Optional.of(m.assignment()))), group);
        check(admin.listGroups(ListGroupsOptions.forConsumerGroups().withTypes(Set.of(GroupType.CONSUMER))).all().get().stream()
                .anyMatch(g -> g.groupId().equals(team.name)), "the group is not listed");
        team.leave(a);
        team.await("b has all", () -> b.owned() == PARTITIONS);
        team.producesAndConsumes(40);
        team.leave(b);
        check(team.describe().groupState() == GroupState.EMPTY, team.describe());
        Member c = team.join(Map.of());
        team.producesAndConsumes(40);
        check(c.records == 40, "a member that came later has consumed " + c.records + " records, not 40");
        admin.createPartitions(Map.of(team.topic, NewPartitions.increaseTo(PARTITIONS + 2))).all().get();
        team.await("c has new partitions", () -> c.owned() == PARTITIONS + 2);
        team.end();
        admin.deleteConsumerGroups(List.of(team.name)).all().get();
    }

    /** An expression, which the broker matches, also finds topics that come later. */
    private void pattern() throws Exception {
        Team team = team("pattern");
        Member a = team.join(Map.of(), c -> c.subscribe(new SubscriptionPattern("pattern-[tu].*")));
        team.await("a has the topic", () -> a.owned() == PARTITIONS);
        admin.createTopics(List.of(new NewTopic("pattern-unborn", 3, (short) 1), new NewTopic("no-pattern-u", 1, (short) 1))).all().get();
        team.await("a has the new topic", () -> a.owned() == PARTITIONS + 3);
        Member b = team.join(Map.of());
        team.await("b has something", () -> a.owned() + b.owned() == PARTITIONS + 3 && b.owned() > 0);
        team.producesAndConsumes(40);
        team.end();
    }

    /** A static member that starts again gets back what it had, and nobody else notices. */
    private void staticMember() throws Exception {
        Team team = team("static");
        Member a = team.join(Map.of("group.instance.id", "a"));
        Member b = team.join(Map.of("group.instance.id", "b"));
        team.await("they share", () -> a.owned() == 2 && b.owned() == 2);
        team.await("the group is stable", () -> team.isStable());
        int epoch = team.describe().groupEpoch().orElseThrow();
        Set<TopicPartition> had = a.consumer.assignment();
        team.leave(a);
        Member again = team.join(Map.of("group.instance.id", "a"));
        team.await("a is back", () -> again.consumer.assignment().equals(had));
        check(team.describe().groupEpoch().orElseThrow() == epoch && b.owned() == 2, team.describe());
        team.producesAndConsumes(40);
        team.end();
    }

    /** With the range assignor, a member has the same partitions of both topics. */
    private void range() throws Exception {
        Team team = team("range");
        admin.createTopics(List.of(new NewTopic("range-other", PARTITIONS, (short) 1))).all().get();
        List<String> topics = List.of(team.topic, "range-other");
        Member a = team.join(Map.of("group.remote.assignor", "range"), c -> c.subscribe(topics));
        Member b = team.join(Map.of("group.remote.assignor", "range"), c -> c.subscribe(topics));
        team.await("they share", () -> a.owned() == PARTITIONS && b.owned() == PARTITIONS);
        check(team.describe().partitionAssignor().equals("range"), team.describe());
        for (String topic : topics) {
            check(a.partitions(topic).equals(a.partitions(team.topic)), a.consumer.assignment());
        }
        team.end();
    }

    /** What the broker refuses, the application is told. */
    private void refusals() throws Exception {
        Team team = team("refusals");
        expect(InvalidRegularExpression.class, Map.of(), c -> c.subscribe(new SubscriptionPattern("(")));
        expect(UnsupportedAssignorException.class, Map.of("group.remote.assignor", "no-such"), c -> c.subscribe(List.of(team.topic)));
    }

    private void expect(Class<? extends Exception> error, Map<String, Object> config, Subscribe subscribe) throws Exception {
        try (KafkaConsumer<String, String> consumer = consumer("refusals", config)) {
            subscribe.to(consumer);
            for (long end = System.nanoTime() + TIMEOUT.toNanos(); System.nanoTime() < end;) {
                consumer.poll(Duration.ofMillis(50));
            }
            throw new AssertionError("no " + error.getSimpleName());
        } catch (Exception e) {
            if (!error.isInstance(e)) {
                throw e;
            }
        }
    }

    /** Members are restarted one after the other, with the other protocol, and back again. */
    private void migrate(String name, Class<?> strategy) throws Exception {
        Team team = team("migrate-" + name);
        Map<String, Object> classic = Map.of("group.protocol", "classic", "partition.assignment.strategy", strategy.getName(),
                "heartbeat.interval.ms", 1000, "session.timeout.ms", 10000);
        Member[] members = {team.join(classic), team.join(classic)};
        team.await("they share", () -> members[0].owned() == 2 && members[1].owned() == 2);
        team.producesAndConsumes(40);
        for (Map<String, Object> protocol : List.of(Map.<String, Object>of(), classic)) {
            for (int i = 0; i < members.length; i++) {
                team.leave(members[i]);
                members[i] = team.join(protocol);
                team.producesAndConsumes(40);
                team.await("they share", () -> members[0].owned() == 2 && members[1].owned() == 2);
                team.producesAndConsumes(40);
            }
            GroupType want = protocol.isEmpty() ? GroupType.CONSUMER : GroupType.CLASSIC;
            check(team.describe().type() == want, team.describe());
        }
        team.end();
    }

    private interface Subscribe {
        void to(KafkaConsumer<String, String> consumer);
    }

    private KafkaConsumer<String, String> consumer(String group, Map<String, Object> more) {
        Map<String, Object> config = new HashMap<>(Map.of(
                "bootstrap.servers", bootstrap,
                "group.id", group,
                "group.protocol", "consumer",
                "auto.offset.reset", "earliest",
                "metadata.max.age.ms", 2000,
                "enable.auto.commit", false));
        config.putAll(more);
        return new KafkaConsumer<>(config, new StringDeserializer(), new StringDeserializer());
    }

    private Team team(String name) throws Exception {
        Team team = new Team(name);
        admin.createTopics(List.of(new NewTopic(team.topic, PARTITIONS, (short) 1))).all().get();
        return team;
    }

    private static void check(boolean holds, Object what) {
        if (!holds) {
            throw new AssertionError(what);
        }
    }

    /** A consumer of a team, which commits what it has consumed. */
    private static final class Member {
        final KafkaConsumer<String, String> consumer;
        int records;

        Member(KafkaConsumer<String, String> consumer) {
            this.consumer = consumer;
        }

        int owned() {
            return consumer.assignment().size();
        }

        Set<Integer> partitions(String topic) {
            return consumer.assignment().stream().filter(p -> p.topic().equals(topic)).map(TopicPartition::partition).collect(Collectors.toSet());
        }
    }

    /** The members of a group, which one thread polls in turn. */
    private final class Team {
        final String name;
        final String topic;
        final List<Member> members = new ArrayList<>();
        final Set<String> consumed = new TreeSet<>();
        int produced;

        Team(String name) {
            this.name = name;
            this.topic = name + "-topic";
        }

        Member join(Map<String, Object> config) {
            return join(config, c -> c.subscribe(List.of(topic)));
        }

        Member join(Map<String, Object> config, Subscribe subscribe) {
            Member member = new Member(consumer(name, config));
            subscribe.to(member.consumer);
            members.add(member);
            return member;
        }

        void leave(Member member) {
            members.remove(member);
            member.consumer.close();
        }

        void end() {
            new ArrayList<>(members).forEach(this::leave);
        }

        void await(String what, BooleanSupplier done) {
            for (long end = System.nanoTime() + TIMEOUT.toNanos(); !done.getAsBoolean();) {
                check(System.nanoTime() < end, "not in time: " + what + "; " + state());
                members.forEach(this::poll);
            }
        }

        void poll(Member member) {
            boolean any = false;
            for (ConsumerRecord<String, String> record : member.consumer.poll(Duration.ofMillis(50))) {
                consumed.add(record.value());
                member.records++;
                any = true;
            }
            if (!any) {
                return;
            }
            try {
                member.consumer.commitSync();
            } catch (CommitFailedException | RebalanceInProgressException e) {
                // what it was is another member's now, which consumes it again
            }
        }

        void producesAndConsumes(int n) {
            for (int i = 0; i < n; i++) {
                producer.send(new ProducerRecord<>(topic, i % PARTITIONS, null, Integer.toString(produced + i)));
            }
            producer.flush();
            produced += n;
            await("all is consumed", () -> consumed.size() == produced);
        }

        boolean isStable() {
            try {
                return describe().groupState() == GroupState.STABLE;
            } catch (Exception e) {
                throw new AssertionError(e);
            }
        }

        ConsumerGroupDescription describe() throws Exception {
            return admin.describeConsumerGroups(List.of(name)).all().get().get(name);
        }

        String state() {
            return consumed.size() + " of " + produced + " are consumed; "
                    + Arrays.toString(members.stream().map(m -> m.consumer.assignment()).toArray());
        }
    }
}

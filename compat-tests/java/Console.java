import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.BufferedReader;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.InputStreamReader;
import java.io.OutputStream;
import java.io.PrintStream;
import java.lang.reflect.InvocationTargetException;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collection;
import java.util.Comparator;
import java.util.EnumSet;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.TreeMap;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import java.util.stream.Collectors;
import java.util.stream.IntStream;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.AlterConfigOp;
import org.apache.kafka.clients.admin.AlterConfigsOptions;
import org.apache.kafka.clients.admin.ConfigEntry;
import org.apache.kafka.clients.admin.CreatePartitionsOptions;
import org.apache.kafka.clients.admin.CreateTopicsOptions;
import org.apache.kafka.clients.admin.DescribeClusterOptions;
import org.apache.kafka.clients.admin.DescribeConfigsOptions;
import org.apache.kafka.clients.admin.DescribeTopicsOptions;
import org.apache.kafka.clients.admin.ListConfigResourcesOptions;
import org.apache.kafka.clients.admin.ListOffsetsOptions;
import org.apache.kafka.clients.admin.NewPartitionReassignment;
import org.apache.kafka.clients.admin.NewPartitions;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.admin.OffsetSpec;
import org.apache.kafka.clients.admin.RecordsToDelete;
import org.apache.kafka.clients.admin.ScramCredentialInfo;
import org.apache.kafka.clients.admin.ScramMechanism;
import org.apache.kafka.clients.admin.UserScramCredentialUpsertion;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.ElectionType;
import org.apache.kafka.common.IsolationLevel;
import org.apache.kafka.common.TopicCollection;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.Uuid;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.quota.ClientQuotaAlteration;
import org.apache.kafka.common.quota.ClientQuotaEntity;
import org.apache.kafka.common.quota.ClientQuotaFilter;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.errors.WakeupException;
import org.apache.kafka.common.serialization.StringSerializer;
import org.apache.kafka.common.utils.Exit;

/**
 * Apache Kafka's command line tools in one JVM, driven by the tests: reads commands from standard input, each a JSON
 * array of a tool's name and its arguments, and answers each with a JSON object of what the tool printed, on standard
 * output and standard error as they came, and its exit status.
 */
public final class Console {
    private static final String TOOLS = "org.apache.kafka.tools.";
    private static final Map<String, String> CLASSES = Map.ofEntries(
            Map.entry("kafka-acls", TOOLS + "AclCommand"),
            Map.entry("kafka-broker-api-versions", TOOLS + "BrokerApiVersionsCommand"),
            Map.entry("kafka-client-metrics", TOOLS + "ClientMetricsCommand"),
            Map.entry("kafka-cluster", TOOLS + "ClusterTool"),
            Map.entry("kafka-configs", "kafka.admin.ConfigCommand"),
            Map.entry("kafka-consumer-groups", TOOLS + "consumer.group.ConsumerGroupCommand"),
            Map.entry("kafka-delete-records", TOOLS + "DeleteRecordsCommand"),
            Map.entry("kafka-features", TOOLS + "FeatureCommand"),
            Map.entry("kafka-get-offsets", TOOLS + "GetOffsetShell"),
            Map.entry("kafka-groups", TOOLS + "GroupsCommand"),
            Map.entry("kafka-leader-election", TOOLS + "LeaderElectionCommand"),
            Map.entry("kafka-log-dirs", TOOLS + "LogDirsCommand"),
            Map.entry("kafka-metadata-quorum", TOOLS + "MetadataQuorumCommand"),
            Map.entry("kafka-reassign-partitions", TOOLS + "reassign.ReassignPartitionsCommand"),
            Map.entry("kafka-topics", TOOLS + "TopicCommand"),
            Map.entry("kafka-transactions", TOOLS + "TransactionsCommand"));

    /** What ends a tool instead of the JVM. */
    private static final class Ended extends Error {
        private static final long serialVersionUID = 1;

        Ended() {
            super(null, null, false, false);
        }
    }

    /** Where standard output and standard error go. The tools' loggers keep the stream that they find first. */
    private static final class Captured extends OutputStream {
        private final ByteArrayOutputStream bytes = new ByteArrayOutputStream();

        @Override
        public synchronized void write(int b) {
            bytes.write(b);
        }

        @Override
        public synchronized void write(byte[] b, int from, int length) {
            bytes.write(b, from, length);
        }

        synchronized String take() {
            String text = bytes.toString(StandardCharsets.UTF_8);
            bytes.reset();
            return text;
        }
    }

    private static final Captured CAPTURED = new Captured();
    private static ObjectNode answer; // null until the tool ends

    private Console() {}

    /** A tool ends but once: some take what ends them for a failure, and end again. */
    private static void end(int status) {
        if (answer == null) {
            answer = new ObjectMapper().createObjectNode().put("output", CAPTURED.take()).put("status", status);
        }
    }

    public static void main(String[] args) throws Exception {
        ObjectMapper json = new ObjectMapper();
        BufferedReader in = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        PrintStream out = new PrintStream(System.out, false, StandardCharsets.UTF_8);
        PrintStream console = new PrintStream(CAPTURED, true, StandardCharsets.UTF_8);
        System.setProperty("org.slf4j.simpleLogger.defaultLogLevel", "warn"); // read when the first logger is made
        System.setOut(console);
        System.setErr(console);
        Exit.Procedure end = (status, message) -> {
            end(status);
            throw new Ended();
        };
        Exit.setExitProcedure(end);
        Exit.setHaltProcedure(end);
        for (String line = in.readLine(); line != null; line = in.readLine()) {
            answer = null;
            end(run(json.readTree(line)));
            CAPTURED.take();
            out.println(answer);
            out.flush();
        }
    }

    private static int run(JsonNode command) throws IOException {
        String[] args = new String[command.size() - 1];
        for (int i = 0; i < args.length; i++) {
            args[i] = command.get(i + 1).asText();
        }
        String tool = command.get(0).asText();
        if (tool.equals("admin")) {
            return Calls.run(args);
        }
        try {
            Class.forName(CLASSES.get(tool)).getMethod("main", String[].class).invoke(null, (Object) args);
            return 0;
        } catch (InvocationTargetException e) {
            e.getCause().printStackTrace();
            return 1;
        } catch (ReflectiveOperationException e) {
            e.printStackTrace();
            return 1;
        }
    }
}

/** Calls of the admin client that no tool makes, as one more tool. Each prints what it was answered, in order. */
final class Calls {
    private final Admin admin;
    private final String bootstrap;
    private final String[] args;

    private Calls(Admin admin, String[] args) {
        this.admin = admin;
        this.bootstrap = args[1];
        this.args = Arrays.copyOfRange(args, 2, args.length);
    }

    /** Runs a call: its name, the bootstrap servers, and what it takes. */
    static int run(String[] args) {
        try (Admin admin = Admin.create(Map.of("bootstrap.servers", args[1], "request.timeout.ms", 10_000, "default.api.timeout.ms", 10_000))) {
            new Calls(admin, args).call(args[0]);
            return 0;
        } catch (Exception e) {
            System.out.println(error(e));
            return 1;
        }
    }

    private void call(String name) throws Exception {
        switch (name) {
            case "produce" -> produce();
            case "consume" -> consume();
            case "join" -> join();
            case "leave" -> leave();
            case "list-offsets" -> listOffsets();
            case "delete-records" -> deleteRecords();
            case "describe-configs" -> describeConfigs();
            case "alter-configs" -> alterConfigs();
            case "list-config-resources" -> listConfigResources();
            case "create-topics" -> createTopics();
            case "create-partitions" -> createPartitions();
            case "describe-topics" -> describeTopics();
            case "topic-ids" -> topicIds();
            case "describe-cluster" -> describeCluster();
            case "describe-producers" -> describeProducers();
            case "elect-leaders" -> electLeaders();
            case "reassign" -> reassign();
            case "quotas" -> quotas();
            case "scram" -> scram();
            default -> throw new IllegalArgumentException("unknown call " + name);
        }
    }

    /** topic partition count first-timestamp: records of the timestamps that follow, each a batch. */
    private void produce() throws Exception {
        Map<String, Object> config = Map.of("bootstrap.servers", bootstrap, "linger.ms", 0);
        try (var producer = new KafkaProducer<>(config, new StringSerializer(), new StringSerializer())) {
            for (int i = 0; i < number(2); i++) {
                producer.send(new ProducerRecord<>(args[0], number(1), Long.parseLong(args[3]) + i, "key", "value")).get();
            }
        }
    }

    /** topic group count: reads with a consumer of the default settings, which asks for telemetry, and commits. */
    private void consume() {
        Map<String, Object> config = Map.of(
                "bootstrap.servers", bootstrap, "group.id", args[1], "client.id", "console", "auto.offset.reset", "earliest");
        try (var consumer = new KafkaConsumer<>(config, new StringDeserializer(), new StringDeserializer())) {
            consumer.subscribe(List.of(args[0]));
            int left = number(2);
            while (left > 0) {
                left -= consumer.poll(java.time.Duration.ofSeconds(20)).count();
            }
            consumer.commitSync();
        }
    }

    private static KafkaConsumer<String, String> member; // of a group, polled by poller, between join and leave
    private static Thread poller;

    /** topic group protocol: returns when the member has its partitions. */
    private void join() throws InterruptedException {
        var assigned = new CountDownLatch(1);
        member = new KafkaConsumer<>(
                Map.of("bootstrap.servers", bootstrap, "group.id", args[1], "group.protocol", args[2], "client.id", "member"),
                new StringDeserializer(), new StringDeserializer());
        member.subscribe(List.of(args[0]));
        poller = new Thread(() -> {
            try (var polled = member) {
                while (true) {
                    polled.poll(java.time.Duration.ofMillis(100));
                    if (!polled.assignment().isEmpty()) {
                        assigned.countDown();
                    }
                }
            } catch (WakeupException e) {
                return; // leave
            }
        });
        poller.start();
        if (!assigned.await(20, TimeUnit.SECONDS)) {
            throw new IllegalStateException("no partitions in time");
        }
    }

    private void leave() throws InterruptedException {
        member.wakeup();
        poller.join();
    }

    private void listOffsets() {
        TopicPartition partition = new TopicPartition(args[0], number(1));
        Map<String, OffsetSpec> specs = new TreeMap<>(Map.of(
                "earliest", OffsetSpec.earliest(),
                "earliest-local", OffsetSpec.earliestLocal(),
                "earliest-pending-upload", OffsetSpec.earliestPendingUpload(),
                "latest", OffsetSpec.latest(),
                "latest-tiered", OffsetSpec.latestTiered(),
                "max-timestamp", OffsetSpec.maxTimestamp(),
                "time 0", OffsetSpec.forTimestamp(0),
                "time 1005", OffsetSpec.forTimestamp(1005),
                "time 9999", OffsetSpec.forTimestamp(9999)));
        specs.forEach((name, spec) -> {
            for (IsolationLevel level : IsolationLevel.values()) {
                show(name + " " + level, admin.listOffsets(Map.of(partition, spec), new ListOffsetsOptions(level))
                        .partitionResult(partition), o -> "offset " + o.offset() + " timestamp " + o.timestamp()
                        + " epoch " + o.leaderEpoch().map(String::valueOf).orElse("none"));
            }
        });
    }

    /** topic, then partition:offset each. */
    private void deleteRecords() throws InterruptedException {
        Map<TopicPartition, RecordsToDelete> asked = new TreeMap<>(Comparator.comparing(TopicPartition::toString));
        for (int i = 1; i < args.length; i++) {
            String[] at = args[i].split(":");
            asked.put(new TopicPartition(args[0], Integer.parseInt(at[0])), RecordsToDelete.beforeOffset(Long.parseLong(at[1])));
        }
        var results = admin.deleteRecords(asked).lowWatermarks();
        for (Future<?> result : results.values()) { // what the client logs about some comes before what is shown
            try {
                result.get();
            } catch (ExecutionException e) {
                continue;
            }
        }
        asked.keySet().forEach(p -> show(p, results.get(p), d -> d.lowWatermark()));
    }

    /** type, name, and the names of configs, all if there are none. */
    private void describeConfigs() throws Exception {
        List<String> names = args.length > 2 ? List.of(args[2].split(",")) : null;
        ConfigResource resource = new ConfigResource(ConfigResource.Type.valueOf(args[0]), args.length > 1 ? args[1] : "");
        var options = new DescribeConfigsOptions().includeSynonyms(true).includeDocumentation(true);
        admin.describeConfigs(Set.of(resource), options).all().get().get(resource).entries().stream()
                .filter(e -> names == null || names.contains(e.name()))
                .sorted(Comparator.comparing(ConfigEntry::name))
                .forEach(e -> {
                    System.out.println(e.name() + "=" + e.value() + " " + e.type() + " " + e.source()
                            + (e.isReadOnly() ? " read-only" : "") + (e.isSensitive() ? " sensitive" : "")
                            + (e.documentation() == null || e.documentation().isEmpty() ? " undocumented" : ""));
                    e.synonyms().forEach(s -> System.out.println("  " + s.name() + "=" + s.value() + " " + s.source()));
                });
    }

    /** validate|alter, then type:name:op:key=value each, all in one request; what is of one resource goes together. */
    private void alterConfigs() {
        Map<ConfigResource, Collection<AlterConfigOp>> changes = new java.util.LinkedHashMap<>();
        for (int i = 1; i < args.length; i++) {
            String[] part = args[i].split(":", 4);
            String[] entry = part[3].split("=", 2);
            var resource = new ConfigResource(ConfigResource.Type.valueOf(part[0]), part[1]);
            changes.computeIfAbsent(resource, r -> new ArrayList<>()).add(new AlterConfigOp(
                    new ConfigEntry(entry[0], entry.length > 1 ? entry[1] : null), AlterConfigOp.OpType.valueOf(part[2])));
        }
        var options = new AlterConfigsOptions().validateOnly(args[0].equals("validate"));
        var results = admin.incrementalAlterConfigs(changes, options).values();
        changes.keySet().forEach(r -> show(r, results.get(r), v -> "ok"));
    }

    private void listConfigResources() throws Exception {
        Set<ConfigResource.Type> types = Arrays.stream(args).map(ConfigResource.Type::valueOf).collect(Collectors.toSet());
        admin.listConfigResources(types, new ListConfigResourcesOptions()).all().get().stream()
                .map(ConfigResource::toString).sorted().forEach(System.out::println);
    }

    /** validate|create, then name:partitions:replication each, or name:@replicas,of,0/of,1; one more : for a config. */
    private void createTopics() {
        List<NewTopic> topics = new ArrayList<>();
        for (int i = 1; i < args.length; i++) {
            String[] part = args[i].split(":", 4);
            NewTopic topic;
            if (part[1].startsWith("@")) {
                topic = new NewTopic(part[0], assignment(part[1].substring(1)));
            } else {
                topic = new NewTopic(part[0], optional(part[1]), optional(part[2]).map(Integer::shortValue));
            }
            if (part.length > 3) {
                String[] entry = part[3].split("=", 2);
                topic.configs(Map.of(entry[0], entry[1]));
            }
            topics.add(topic);
        }
        var result = admin.createTopics(topics, new CreateTopicsOptions().validateOnly(args[0].equals("validate")));
        result.values().keySet().stream().sorted().forEach(t -> show(t, result.values().get(t), v -> {
            try {
                return result.numPartitions(t).get() + " partitions, " + result.replicationFactor(t).get() + " replicas, "
                        + result.config(t).get().entries().size() + " configs, "
                        + (result.topicId(t).get().equals(Uuid.ZERO_UUID) ? "no id" : "an id");
            } catch (InterruptedException | ExecutionException e) {
                return error(e);
            }
        }));
    }

    private static Map<Integer, List<Integer>> assignment(String text) {
        Map<Integer, List<Integer>> assignment = new TreeMap<>();
        for (String replicas : text.split("/", -1)) {
            assignment.put(assignment.size(), Arrays.stream(replicas.split(",")).filter(r -> !r.isEmpty()).map(Integer::valueOf).toList());
        }
        return assignment;
    }

    private static Optional<Integer> optional(String number) {
        return number.isEmpty() ? Optional.empty() : Optional.of(Integer.valueOf(number));
    }

    /** validate|create, then name:total each, or name:total:replicas,of,the/new,ones. */
    private void createPartitions() {
        Map<String, NewPartitions> asked = new TreeMap<>();
        for (int i = 1; i < args.length; i++) {
            String[] part = args[i].split(":");
            int total = Integer.parseInt(part[1]);
            asked.put(part[0], part.length > 2
                    ? NewPartitions.increaseTo(total, List.copyOf(assignment(part[2]).values()))
                    : NewPartitions.increaseTo(total));
        }
        var options = new CreatePartitionsOptions().validateOnly(args[0].equals("validate"));
        var results = admin.createPartitions(asked, options).values();
        asked.keySet().forEach(t -> show(t, results.get(t), v -> "ok"));
    }

    /** page size, then names: the answers of all pages together. */
    private void describeTopics() {
        var options = new DescribeTopicsOptions().partitionSizeLimitPerResponse(number(0)).includeAuthorizedOperations(false);
        List<String> names = List.of(args).subList(1, args.length);
        var results = admin.describeTopics(TopicCollection.ofTopicNames(names), options).topicNameValues();
        names.forEach(t -> show(t, results.get(t), d -> d.partitions().stream()
                .map(p -> String.valueOf(p.partition())).collect(Collectors.joining(" "))));
    }

    /** Describes and deletes a topic by its id, and then again, when no broker has shown it for a while. */
    private void topicIds() throws Exception {
        Uuid id = admin.describeTopics(List.of(args[0])).allTopicNames().get().get(args[0]).topicId();
        var ids = TopicCollection.ofTopicIds(List.of(id));
        show("describe", admin.describeTopics(ids).topicIdValues().get(id), d -> d.name());
        show("delete", admin.deleteTopics(ids).topicIdValues().get(id), v -> "ok");
        final long quiet = 500_000_000; // ns; a broker may be that much behind another
        long begin = System.nanoTime();
        long shown = begin;
        while (System.nanoTime() - shown < quiet && System.nanoTime() - begin < 20 * quiet) {
            if (admin.listTopics().names().get().contains(args[0])) {
                shown = System.nanoTime();
            }
        }
        show("describe", admin.describeTopics(ids).topicIdValues().get(id), d -> d.name());
        show("delete", admin.deleteTopics(ids).topicIdValues().get(id), v -> "ok");
    }

    private void describeCluster() throws Exception {
        var cluster = admin.describeCluster(new DescribeClusterOptions().includeFencedBrokers(true).includeAuthorizedOperations(true));
        System.out.println("controller is a node: " + cluster.nodes().get().contains(cluster.controller().get()));
        System.out.println("cluster id of " + cluster.clusterId().get().length() + " characters");
        System.out.println("fenced: " + cluster.nodes().get().stream().filter(n -> n.isFenced()).count());
        System.out.println("operations: " + EnumSet.copyOf(cluster.authorizedOperations().get()));
    }

    private void describeProducers() {
        TopicPartition partition = new TopicPartition(args[0], number(1));
        show(partition, admin.describeProducers(Set.of(partition)).partitionResult(partition), s -> s.activeProducers().stream()
                .sorted(Comparator.comparing(p -> p.lastSequence()))
                .map(p -> "epoch " + p.producerEpoch() + " sequence " + p.lastSequence() + " timestamp " + p.lastTimestamp()
                        + " coordinator " + p.coordinatorEpoch() + " transaction " + p.currentTransactionStartOffset())
                .collect(Collectors.joining("; ")));
    }

    /** type, then topic-partition each. */
    private void electLeaders() throws Exception {
        Set<TopicPartition> partitions = partitions(1);
        admin.electLeaders(ElectionType.valueOf(args[0]), partitions).partitions().get().entrySet().stream()
                .sorted(Comparator.comparing(e -> e.getKey().toString()))
                .forEach(e -> System.out.println(e.getKey() + ": " + e.getValue().map(Calls::error).orElse("ok")));
    }

    /** replicas, same (those that are) or none (cancel); then topic-partition each. Lists them afterwards. */
    private void reassign() throws Exception {
        Map<TopicPartition, Optional<NewPartitionReassignment>> asked = new TreeMap<>(Comparator.comparing(TopicPartition::toString));
        for (TopicPartition p : partitions(1)) {
            asked.put(p, switch (args[0]) {
                case "none" -> Optional.empty();
                case "same" -> Optional.of(new NewPartitionReassignment(
                        admin.describeTopics(List.of(p.topic())).allTopicNames().get().get(p.topic())
                                .partitions().get(p.partition()).replicas().stream().map(n -> n.id()).toList()));
                default -> Optional.of(new NewPartitionReassignment(
                        Arrays.stream(args[0].split(",")).map(Integer::valueOf).toList()));
            });
        }
        var results = admin.alterPartitionReassignments(asked).values();
        asked.keySet().forEach(p -> show(p, results.get(p), v -> "ok"));
        System.out.println("under way: " + admin.listPartitionReassignments().reassignments().get());
    }

    private void quotas() {
        show("describe", admin.describeClientQuotas(ClientQuotaFilter.all()).entities(), Map::toString);
        var entity = new ClientQuotaEntity(Map.of(ClientQuotaEntity.USER, "someone"));
        var alteration = new ClientQuotaAlteration(entity, List.of(new ClientQuotaAlteration.Op("producer_byte_rate", 1e6)));
        show("alter", admin.alterClientQuotas(List.of(alteration)).values().get(entity), v -> "ok");
    }

    private void scram() {
        show("describe all", admin.describeUserScramCredentials().all(), Map::toString);
        show("describe one", admin.describeUserScramCredentials(List.of("someone")).description("someone"), d -> d.toString());
        var credential = new UserScramCredentialUpsertion("someone", new ScramCredentialInfo(ScramMechanism.SCRAM_SHA_256, 4096), "secret");
        show("alter", admin.alterUserScramCredentials(List.of(credential)).values().get("someone"), v -> "ok");
    }

    private Set<TopicPartition> partitions(int from) {
        return IntStream.range(from, args.length).mapToObj(i -> {
            int dash = args[i].lastIndexOf('-');
            return new TopicPartition(args[i].substring(0, dash), Integer.parseInt(args[i].substring(dash + 1)));
        }).collect(Collectors.toSet());
    }

    private int number(int arg) {
        return Integer.parseInt(args[arg]);
    }

    private static <T> void show(Object what, Future<T> answer, java.util.function.Function<T, Object> text) {
        try {
            System.out.println(what + ": " + text.apply(answer.get()));
        } catch (InterruptedException | ExecutionException e) {
            System.out.println(what + ": " + error(e));
        }
    }

    private static String error(Throwable e) {
        Throwable cause = e instanceof ExecutionException ? e.getCause() : e;
        return cause.getClass().getSimpleName() + ": " + cause.getMessage();
    }
}

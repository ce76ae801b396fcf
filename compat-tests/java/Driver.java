import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.io.PrintWriter;
import java.io.StringWriter;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.concurrent.Future;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.AlterConfigOp;
import org.apache.kafka.clients.admin.Config;
import org.apache.kafka.clients.admin.ConfigEntry;
import org.apache.kafka.clients.admin.ConsumerGroupDescription;
import org.apache.kafka.clients.admin.NewPartitions;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.consumer.OffsetAndTimestamp;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.header.internals.RecordHeader;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;
import org.apache.kafka.common.utils.AppInfoParser;

/**
 * Apache Kafka's Java client, any from 2.8 to 4.x, driven by the tests: reads requests from standard input and answers on standard output,
 * one JSON object a line. clients.Request and clients.Response in ../clients/driver.go describe them.
 */
public final class Driver {
    private static final Duration TIMEOUT = Duration.ofSeconds(60); // far above what any operation needs
    private static final int MAX_BYTES = 8 << 20;
    private static final long EARLIEST = -2;
    private static final long LATEST = -1;
    private static final long NO_OFFSET = -1;

    private final ObjectMapper json = new ObjectMapper();
    private final String bootstrap;
    private final Admin admin;
    private final Map<String, KafkaConsumer<byte[], byte[]>> members = new HashMap<>();

    private Driver(String bootstrap, Admin admin) {
        this.bootstrap = bootstrap;
        this.admin = admin;
    }

    public static void main(String[] args) throws IOException {
        BufferedReader in = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        PrintStream out = new PrintStream(System.out, false, StandardCharsets.UTF_8);
        try (Admin admin = Admin.create(connection(args[0]))) {
            Driver driver = new Driver(args[0], admin);
            for (String line = in.readLine(); line != null; line = in.readLine()) {
                out.println(driver.answer(driver.json.readTree(line)));
                out.flush();
            }
        }
    }

    /** Where to connect to, and as whom. */
    private static Map<String, Object> connection(String bootstrap) {
        Map<String, Object> config = new HashMap<>(Map.of("bootstrap.servers", bootstrap));
        String id = System.getenv("COMPAT_CLIENT_ID");
        if (id != null) {
            config.put("client.id", id);
        }
        return config;
    }

    private ObjectNode answer(JsonNode request) {
        ObjectNode response = json.createObjectNode();
        try {
            switch (request.get("op").asText()) {
                case "version" -> version(response);
                case "createTopic" -> createTopic(request);
                case "partitionCount" -> response.put("count", partitionCount(request));
                case "createPartitions" -> createPartitions(request);
                case "topicConfigs" -> topicConfigs(request, response.putObject("configs"));
                case "alterTopicConfig" -> alterTopicConfig(request);
                case "deleteTopic" -> admin.deleteTopics(List.of(topic(request))).all().get();
                case "groups" -> groups(response.putArray("groups"));
                case "describeGroup" -> describeGroup(request, response);
                case "deleteGroup" -> admin.deleteConsumerGroups(List.of(group(request))).all().get();
                case "produce" -> produce(request, response.putArray("offsets"));
                case "offsets" -> offsets(request, response.putArray("offsets"));
                case "read" -> read(request, response.putArray("records"));
                case "readGroup" -> readGroup(request, response.putArray("records"));
                case "join" -> join(request);
                case "poll" -> poll(request, response.putArray("records"));
                case "assignment" -> assignment(request, response.putArray("partitions"));
                case "commit" -> member(request).commitSync();
                case "seek" -> member(request).seek(memberPartition(request), request.get("offset").asLong());
                case "pause" -> member(request).pause(List.of(memberPartition(request)));
                case "resume" -> member(request).resume(List.of(memberPartition(request)));
                case "leave" -> members.remove(request.get("member").asText()).close();
                default -> throw new IllegalArgumentException("unknown operation " + request.get("op"));
            }
        } catch (Exception e) {
            StringWriter trace = new StringWriter();
            e.printStackTrace(new PrintWriter(trace));
            response.removeAll().put("error", trace.toString());
        }
        return response;
    }

    private static void version(ObjectNode response) {
        response.put("version", AppInfoParser.getVersion());
        List.of("none", "gzip", "snappy", "lz4", "zstd").forEach(response.putArray("codecs")::add);
    }

    private void createTopic(JsonNode request) throws Exception {
        Map<String, String> configs = new HashMap<>();
        request.path("configs").properties().forEach(f -> configs.put(f.getKey(), f.getValue().asText()));
        NewTopic topic = new NewTopic(topic(request), Optional.of(request.get("partitions").asInt()), Optional.empty());
        admin.createTopics(List.of(topic.configs(configs))).all().get();
    }

    private int partitionCount(JsonNode request) {
        try (KafkaConsumer<byte[], byte[]> consumer = consumer(Map.of())) {
            return consumer.partitionsFor(topic(request)).size();
        }
    }

    private void createPartitions(JsonNode request) throws Exception {
        NewPartitions total = NewPartitions.increaseTo(request.get("count").asInt());
        admin.createPartitions(Map.of(topic(request), total)).all().get();
    }

    private void topicConfigs(JsonNode request, ObjectNode configs) throws Exception {
        ConfigResource resource = new ConfigResource(ConfigResource.Type.TOPIC, topic(request));
        Config config = admin.describeConfigs(List.of(resource)).all().get().get(resource);
        config.entries().forEach(entry -> configs.put(entry.name(), entry.value()));
    }

    private void alterTopicConfig(JsonNode request) throws Exception {
        ConfigResource resource = new ConfigResource(ConfigResource.Type.TOPIC, topic(request));
        List<AlterConfigOp> sets = new ArrayList<>();
        request.get("configs").properties().forEach(f -> sets.add(
                new AlterConfigOp(new ConfigEntry(f.getKey(), f.getValue().asText()), AlterConfigOp.OpType.SET)));
        admin.incrementalAlterConfigs(Map.of(resource, sets)).all().get();
    }

    @SuppressWarnings("removal") // what replaces it is not in 2.8
    private void groups(ArrayNode groups) throws Exception {
        admin.listConsumerGroups().all().get().forEach(group -> groups.add(group.groupId()));
    }

    @SuppressWarnings("removal") // what replaces it is not in 2.8
    private void describeGroup(JsonNode request, ObjectNode response) throws Exception {
        String group = group(request);
        ConsumerGroupDescription description = admin.describeConsumerGroups(List.of(group)).all().get().get(group);
        response.put("state", description.state().toString()).put("count", description.members().size());
    }

    private void produce(JsonNode request, ArrayNode offsets) throws Exception {
        Map<String, Object> config = connection(bootstrap);
        config.put("compression.type", request.get("codec").asText());
        config.put("acks", "all");
        config.put("enable.idempotence", true);
        config.put("linger.ms", 5);
        config.put("max.request.size", MAX_BYTES);
        List<Future<RecordMetadata>> sent = new ArrayList<>();
        try (var producer = new KafkaProducer<>(config, new ByteArraySerializer(), new ByteArraySerializer())) {
            for (JsonNode record : request.get("records")) {
                sent.add(producer.send(fromJson(topic(request), record)));
            }
        }
        for (Future<RecordMetadata> result : sent) {
            offsets.add(result.get().offset());
        }
    }

    private void offsets(JsonNode request, ArrayNode offsets) {
        try (KafkaConsumer<byte[], byte[]> consumer = consumer(Map.of())) {
            Map<TopicPartition, Long> found = lookUp(consumer, request);
            partitions(request).forEach(p -> offsets.add(found.getOrDefault(p, NO_OFFSET)));
        }
    }

    private void read(JsonNode request, ArrayNode records) {
        try (KafkaConsumer<byte[], byte[]> consumer = consumer(Map.of())) {
            Map<TopicPartition, Long> start = lookUp(consumer, request);
            Map<TopicPartition, Long> end = consumer.endOffsets(start.keySet());
            consumer.assign(start.keySet());
            start.forEach(consumer::seek);
            long count = start.keySet().stream().mapToLong(p -> end.get(p) - start.get(p)).sum();
            take(consumer, count, records);
        }
    }

    private void readGroup(JsonNode request, ArrayNode records) {
        try (KafkaConsumer<byte[], byte[]> consumer = subscriber(request)) {
            consumer.commitSync(take(consumer, request.get("count").asLong(), records));
        }
    }

    private void join(JsonNode request) {
        members.put(request.get("member").asText(), subscriber(request));
    }

    /** What was fetched beyond the limit is fetched again, so that the consumer's position follows what was returned. */
    private void poll(JsonNode request, ArrayNode records) {
        KafkaConsumer<byte[], byte[]> consumer = member(request);
        var polled = consumer.poll(Duration.ofMillis(request.get("waitMillis").asLong()));
        int limit = request.get("count").asInt();
        for (TopicPartition partition : polled.partitions()) {
            for (ConsumerRecord<byte[], byte[]> record : polled.records(partition)) {
                if (records.size() == limit) {
                    consumer.seek(partition, record.offset());
                    break;
                }
                records.add(toJson(record));
            }
        }
    }

    private void assignment(JsonNode request, ArrayNode partitions) {
        member(request).assignment().forEach(p -> partitions.add(p.partition()));
    }

    private KafkaConsumer<byte[], byte[]> member(JsonNode request) {
        return members.get(request.get("member").asText());
    }

    /** Offsets by partition; a partition that has no record so young is left out. */
    private Map<TopicPartition, Long> lookUp(KafkaConsumer<byte[], byte[]> consumer, JsonNode request) {
        List<TopicPartition> partitions = partitions(request);
        long timestamp = request.get("timestamp").asLong();
        if (timestamp == EARLIEST) {
            return consumer.beginningOffsets(partitions);
        }
        if (timestamp == LATEST) {
            return consumer.endOffsets(partitions);
        }
        Map<TopicPartition, Long> times = new HashMap<>();
        partitions.forEach(p -> times.put(p, timestamp));
        Map<TopicPartition, Long> found = new HashMap<>();
        for (Map.Entry<TopicPartition, OffsetAndTimestamp> e : consumer.offsetsForTimes(times).entrySet()) {
            if (e.getValue() != null) {
                found.put(e.getKey(), e.getValue().offset());
            }
        }
        return found;
    }

    /** Polls exactly count records, adds them to the answer, and returns the offsets to commit for them. */
    private Map<TopicPartition, OffsetAndMetadata> take(
            KafkaConsumer<byte[], byte[]> consumer, long count, ArrayNode records) {
        Map<TopicPartition, OffsetAndMetadata> next = new HashMap<>();
        while (records.size() < count) {
            var polled = consumer.poll(TIMEOUT);
            if (polled.isEmpty()) {
                throw new IllegalStateException("read " + records.size() + " of " + count + " records");
            }
            for (ConsumerRecord<byte[], byte[]> record : polled) {
                if (records.size() == count) {
                    break;
                }
                records.add(toJson(record));
                next.put(new TopicPartition(record.topic(), record.partition()), new OffsetAndMetadata(record.offset() + 1));
            }
        }
        return next;
    }

    /** The partition that a request means, of the topic that its member subscribes to. */
    private TopicPartition memberPartition(JsonNode request) {
        String topic = member(request).subscription().iterator().next();
        return new TopicPartition(topic, request.get("partition").asInt());
    }

    /** A consumer that is to be a member of a group. */
    private KafkaConsumer<byte[], byte[]> subscriber(JsonNode request) {
        KafkaConsumer<byte[], byte[]> consumer = consumer(Map.of(
                "group.id", group(request),
                "auto.offset.reset", "earliest",
                "heartbeat.interval.ms", 500,
                "session.timeout.ms", 6000));
        consumer.subscribe(List.of(topic(request)));
        return consumer;
    }

    private KafkaConsumer<byte[], byte[]> consumer(Map<String, Object> more) {
        Map<String, Object> config = connection(bootstrap);
        config.putAll(more);
        config.put("enable.auto.commit", false);
        config.put("max.partition.fetch.bytes", MAX_BYTES);
        return new KafkaConsumer<>(config, new ByteArrayDeserializer(), new ByteArrayDeserializer());
    }

    private ProducerRecord<byte[], byte[]> fromJson(String topic, JsonNode record) throws IOException {
        List<Header> headers = new ArrayList<>();
        for (JsonNode header : record.get("headers")) {
            headers.add(new RecordHeader(header.get("key").asText(), header.get("value").binaryValue()));
        }
        return new ProducerRecord<>(
                topic,
                record.get("partition").asInt(),
                record.get("timestamp").asLong(),
                record.get("key").binaryValue(),
                record.get("value").binaryValue(),
                headers);
    }

    private ObjectNode toJson(ConsumerRecord<byte[], byte[]> record) {
        ObjectNode node = json.createObjectNode()
                .put("partition", record.partition())
                .put("offset", record.offset())
                .put("timestamp", record.timestamp())
                .put("key", record.key())
                .put("value", record.value());
        ArrayNode headers = node.putArray("headers");
        for (Header header : record.headers()) {
            headers.addObject().put("key", header.key()).put("value", header.value());
        }
        return node;
    }

    private static String topic(JsonNode request) {
        return request.get("topic").asText();
    }

    private static String group(JsonNode request) {
        return request.get("group").asText();
    }

    private static List<TopicPartition> partitions(JsonNode request) {
        List<TopicPartition> partitions = new ArrayList<>();
        for (int p = 0; p < request.get("partitions").asInt(); p++) {
            partitions.add(new TopicPartition(topic(request), p));
        }
        return partitions;
    }
}

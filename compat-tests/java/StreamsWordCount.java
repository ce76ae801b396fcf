import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.List;
import java.util.Properties;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.common.utils.Bytes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.errors.StreamsUncaughtExceptionHandler.StreamThreadExceptionResponse;
import org.apache.kafka.streams.kstream.Consumed;
import org.apache.kafka.streams.kstream.Grouped;
import org.apache.kafka.streams.kstream.KGroupedStream;
import org.apache.kafka.streams.kstream.Materialized;
import org.apache.kafka.streams.kstream.Named;
import org.apache.kafka.streams.kstream.Produced;
import org.apache.kafka.streams.kstream.TimeWindows;
import org.apache.kafka.streams.processor.StateRestoreListener;
import org.apache.kafka.streams.state.KeyValueStore;
import org.apache.kafka.streams.state.WindowStore;

/**
 * The word count of Kafka Streams' documentation: lines in, counts by word out. Words are regrouped through a repartition
 * topic and counted in a store with a changelog, for ever and by the hour.
 *
 * <p>Arguments: the input topic, the output topic, and settings as name=value. It says on standard output, one a line,
 * the states that it enters ("state RUNNING"), how many records it restored ("restored topic-partition count") and what
 * it dies of ("failed exception"). It closes in good order when its standard input ends.
 */
public final class StreamsWordCount {
    private static final Duration WINDOW = Duration.ofHours(1);
    private static final Duration RETENTION = Duration.ofHours(2);
    private static final Duration CLOSING = Duration.ofSeconds(30);

    private StreamsWordCount() {}

    public static void main(String[] args) throws IOException {
        Properties settings = new Properties();
        for (String setting : List.of(args).subList(2, args.length)) {
            String[] parts = setting.split("=", 2);
            settings.put(parts[0], parts[1]);
        }
        PrintStream out = new PrintStream(System.out, true, StandardCharsets.UTF_8);
        KafkaStreams streams;
        try {
            streams = new KafkaStreams(topology(args[0], args[1]).build(), settings);
        } catch (RuntimeException e) {
            out.println("failed " + causes(e));
            return;
        }
        streams.setStateListener((now, before) -> out.println("state " + now));
        streams.setGlobalStateRestoreListener(new Restored(out));
        streams.setUncaughtExceptionHandler(e -> {
            out.println("failed " + causes(e));
            return StreamThreadExceptionResponse.SHUTDOWN_CLIENT;
        });
        streams.start();
        BufferedReader in = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        while (in.readLine() != null) {}
        streams.close(CLOSING);
    }

    private static StreamsBuilder topology(String input, String output) {
        StreamsBuilder builder = new StreamsBuilder();
        KGroupedStream<String, String> words = builder.stream(input, Consumed.with(Serdes.String(), Serdes.String()))
                .flatMapValues(line -> List.of(line.split(" ")))
                .groupBy((key, word) -> word, Grouped.<String, String>as("words")
                        .withKeySerde(Serdes.String()).withValueSerde(Serdes.String()));
        words.count(Named.as("count"), Materialized.<String, Long, KeyValueStore<Bytes, byte[]>>as("counts"))
                .toStream()
                .to(output, Produced.with(Serdes.String(), Serdes.Long()));
        words.windowedBy(TimeWindows.ofSizeWithNoGrace(WINDOW))
                .count(Named.as("count-hourly"),
                        Materialized.<String, Long, WindowStore<Bytes, byte[]>>as("hourly").withRetention(RETENTION));
        return builder;
    }

    /** An exception with its causes, in one line. */
    private static String causes(Throwable e) {
        StringBuilder line = new StringBuilder();
        for (Throwable t = e; t != null; t = t.getCause()) {
            line.append(t.toString().replaceAll("\\s+", " ")).append("; ");
        }
        return line.toString();
    }

    /** Tells how many records of each changelog were read back. */
    private record Restored(PrintStream out) implements StateRestoreListener {
        @Override
        public void onRestoreStart(TopicPartition partition, String store, long from, long to) {}

        @Override
        public void onBatchRestored(TopicPartition partition, String store, long to, long count) {}

        @Override
        public void onRestoreEnd(TopicPartition partition, String store, long total) {
            out.println("restored " + partition + " " + total);
        }
    }
}

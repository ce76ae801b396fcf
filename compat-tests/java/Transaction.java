import java.util.Map;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.common.KafkaException;
import org.apache.kafka.common.serialization.StringSerializer;

/** What an application with a transactional producer meets first: prints how initTransactions fails, or nothing. */
public final class Transaction {
    private Transaction() {}

    public static void main(String[] args) {
        Map<String, Object> config = Map.of("bootstrap.servers", args[0], "transactional.id", "transaction");
        try (var producer = new KafkaProducer<>(config, new StringSerializer(), new StringSerializer())) {
            producer.initTransactions();
        } catch (KafkaException e) {
            System.out.println(e);
        }
    }
}

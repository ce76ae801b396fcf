package report

// Quirk is something of a client that surprises its users, with Apache Kafka too.
type Quirk struct {
	Client string // with its version, if newer ones may do without
	Shows  string
	Advice string // "" if there is nothing to do
}

// Quirks are those that the tests came upon, by client.
var Quirks = []Quirk{
	{
		Client: "franz-go",
		Shows: "A broker that is killed between a client's first request and its answer is taken for one that wants SASL: " +
			"the records under way fail, and are not retried.",
		Advice: "Set `kgo.AlwaysRetryEOF()`.",
	},
	{
		Client: "kafka-go",
		Shows:  "A `Reader` returns empty keys and values as null.",
	},
	{
		Client: "kafka-python 3.0.12",
		Shows:  "A consumer may join its group before it knows the topic. It then gets no partitions, and never joins again.",
		Advice: "Call `partitions_for_topic` before `subscribe`.",
	},
	{
		Client: "KafkaJS 2.2.4",
		Shows: "When a partition moves to a broker that the producer already knows, it reports success for records that it " +
			"never sent ([#1303](https://github.com/tulios/kafkajs/issues/1303), " +
			"[#1798](https://github.com/tulios/kafkajs/pull/1798)).",
		Advice: "Use another client where no record may be lost.",
	},
	{
		Client: "librdkafka",
		Shows: "`query_watermark_offsets` may give the end of a partition as its beginning too, if the request for the " +
			"beginning failed and both answers came at once.",
		Advice: "Begin at `OFFSET_BEGINNING`, and not at an offset that was looked up.",
	},
	{
		Client: "sarama",
		Shows:  "A producer gives a record up after 3 retries, 100 ms apart: too soon for a partition whose agent was killed.",
		Advice: "Raise `Producer.Retry.Max` and `Producer.Retry.Backoff`.",
	},
}

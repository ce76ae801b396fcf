package toolchain

import "context"

// NewStreams returns a JVM with Kafka Streams.
func NewStreams(ctx context.Context) (Java, error) { return newJava(ctx, "streams", "streams-pom.xml") }

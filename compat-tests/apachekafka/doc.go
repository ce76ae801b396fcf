// Package apachekafka runs Apache Kafka's broker, the oracle of the compatibility tests and the yardstick of the
// benchmarks: one node in KRaft's combined mode on loopback, from the jars of Maven Central.
package apachekafka

// KafkaJS, driven by the tests: reads requests from standard input and answers on standard output.
//
// One JSON object a line; clients.Request and clients.Response in ../clients/driver.go describe them.
'use strict'

const readline = require('node:readline')
const {
  CompressionCodecs,
  CompressionTypes,
  ConfigResourceTypes,
  Kafka,
  Partitioners,
  logLevel,
} = require('kafkajs')
const snappy = require('kafkajs-snappy')
const lz4 = require('lz4-napi')
const { ZstdCodec } = require('zstd-codec')

const EARLIEST = -2
const LATEST = -1
const NO_OFFSET = -1
const MAX_BYTES = 8 << 20
const SESSION_MS = 6000
const REBALANCE_MS = 5000
const HEARTBEAT_MS = 500
const FETCH_WAIT_MS = 100 // closing a consumer waits for its last fetch
const BUFFERED = 500 // records of a partition that wait for poll

const COMPRESSION = {
  none: CompressionTypes.None,
  gzip: CompressionTypes.GZIP,
  snappy: CompressionTypes.Snappy,
  lz4: CompressionTypes.LZ4,
  zstd: CompressionTypes.ZSTD,
}

// KafkaJS itself has gzip, and takes the others as plug-ins.
function plugIn(zstd) {
  CompressionCodecs[CompressionTypes.Snappy] = snappy
  CompressionCodecs[CompressionTypes.LZ4] = () => ({
    compress: async encoder => lz4.compressFrame(encoder.buffer),
    decompress: async buffer => lz4.decompressFrame(buffer),
  })
  // The streams, since brokers and other clients leave the size out of a frame.
  const streaming = new zstd.Streaming()
  CompressionCodecs[CompressionTypes.ZSTD] = () => ({
    compress: async encoder => Buffer.from(streaming.compress(encoder.buffer)),
    decompress: async buffer => Buffer.from(streaming.decompress(buffer)),
  })
}

const encode = bytes => (bytes === null || bytes === undefined ? null : Buffer.from(bytes).toString('base64'))
const decode = text => (text === null ? null : Buffer.from(text, 'base64'))

// KafkaJS has headers as an object, where a name that is repeated has an array of values.
function encodeHeaders(headers) {
  return Object.entries(headers || {}).flatMap(([key, values]) =>
    [values].flat().map(value => ({ key, value: encode(value) }))
  )
}

function decodeHeaders(headers) {
  const byKey = {}
  for (const { key, value } of headers || []) {
    byKey[key] = [...(byKey[key] || []), decode(value)]
  }
  return byKey
}

function encodeRecord(partition, message) {
  return {
    partition,
    offset: Number(message.offset),
    timestamp: Number(message.timestamp),
    key: encode(message.key),
    value: encode(message.value),
    headers: encodeHeaders(message.headers),
  }
}

// Signal lets one waiter wait until something happened, or until some time has passed.
class Signal {
  wait(ms) {
    return new Promise(resolve => {
      const timer = setTimeout(resolve, ms)
      this.notify = () => {
        clearTimeout(timer)
        resolve()
      }
    })
  }

  notify() {}
}

// Partition is what a member owns in one generation of its group.
class Partition {
  buffer = [] // what poll has not taken yet
  space = new Signal()
  next = null // the offset after what poll returned
  awaited = null // after a seek: what comes before this offset is dropped
  paused = false

  full() {
    return this.buffer.length >= BUFFERED
  }

  // accept buffers a record; false means that it was fetched before a seek.
  accept(record) {
    if (this.awaited !== null && this.awaited !== record.offset) {
      return false
    }
    this.awaited = null
    this.buffer.push(record)
    return true
  }

  take(limit) {
    if (this.paused) {
      return []
    }
    const records = this.buffer.splice(0, limit)
    if (records.length > 0) {
      this.next = records.at(-1).offset + 1
      this.space.notify()
    }
    return records
  }

  seek(offset) {
    this.buffer = []
    this.awaited = this.next = offset
    this.space.notify()
  }
}

// Member is a consumer in a group, which pushes; poll takes from what it has buffered.
class Member {
  constructor(consumer, topic) {
    this.consumer = consumer
    this.topic = topic
    this.partitions = new Map()
    this.arrival = new Signal()
  }

  async join() {
    const { GROUP_JOIN, REBALANCING, CRASH } = this.consumer.events
    this.consumer.on(GROUP_JOIN, ({ payload }) => {
      const assigned = payload.memberAssignment[this.topic] || []
      this.partitions = new Map(assigned.map(p => [p, new Partition()]))
    })
    this.consumer.on(REBALANCING, () => {
      this.partitions = new Map()
    })
    this.consumer.on(CRASH, ({ payload }) => {
      this.crash = payload.restart ? null : payload.error
    })
    await this.consumer.connect()
    await this.consumer.subscribe({ topic: this.topic, fromBeginning: true })
    await this.consumer.run({
      autoCommit: false,
      eachBatchAutoResolve: false,
      partitionsConsumedConcurrently: 3,
      eachBatch: payload => this.receive(payload),
    })
  }

  // owns waits until the member has n partitions. KafkaJS may have to try again where a group's coordinator is not
  // there yet, and says nothing of it.
  async owns(n) {
    while (this.partitions.size < n) {
      await this.arrival.wait(FETCH_WAIT_MS)
      this.check()
    }
  }

  check() {
    if (this.crash) {
      throw this.crash
    }
  }

  async receive({ batch, resolveOffset, heartbeat, isRunning, isStale }) {
    const partition = this.partitions.get(batch.partition)
    const wanted = () =>
      partition && isRunning() && !isStale() && this.partitions.get(batch.partition) === partition
    for (const message of batch.messages) {
      while (wanted() && partition.full()) {
        await partition.space.wait(HEARTBEAT_MS)
        await heartbeat()
      }
      if (!wanted() || !partition.accept(encodeRecord(batch.partition, message))) {
        return
      }
      resolveOffset(message.offset)
      this.arrival.notify()
    }
    await heartbeat()
  }

  async poll({ count, waitMillis }) {
    let records = this.take(count)
    for (const end = Date.now() + (waitMillis || 0); records.length === 0 && Date.now() < end; ) {
      await this.arrival.wait(end - Date.now())
      records = this.take(count)
    }
    this.check()
    return { records }
  }

  take(limit) {
    const records = []
    for (const partition of this.partitions.values()) {
      records.push(...partition.take(limit - records.length))
    }
    return records
  }

  assignment() {
    return { partitions: [...this.partitions.keys()] }
  }

  async commit() {
    const offsets = []
    for (const [partition, { next }] of this.partitions) {
      if (next !== null) {
        offsets.push({ topic: this.topic, partition, offset: String(next) })
      }
    }
    await this.consumer.commitOffsets(offsets)
  }

  seek({ partition, offset }) {
    this.partitions.get(partition).seek(offset)
    this.consumer.seek({ topic: this.topic, partition, offset: String(offset) })
  }

  pause({ partition }) {
    this.partitions.get(partition).paused = true
    this.consumer.pause([{ topic: this.topic, partitions: [partition] }])
  }

  resume({ partition }) {
    this.partitions.get(partition).paused = false
    this.arrival.notify()
    this.consumer.resume([{ topic: this.topic, partitions: [partition] }])
  }

  async leave() {
    await this.consumer.disconnect()
  }
}

class Driver {
  constructor(bootstrap) {
    this.kafka = new Kafka({
      clientId: 'compat',
      brokers: bootstrap.split(','),
      logLevel: logLevel.ERROR,
      logCreator: () => ({ namespace, log }) => console.error(namespace, JSON.stringify(log)),
    })
    this.admin = this.kafka.admin()
    this.connected = this.admin.connect()
    this.members = new Map()
    this.reads = 0
  }

  version() {
    return { version: require('kafkajs/package.json').version, codecs: Object.keys(COMPRESSION) }
  }

  async createTopic({ topic, partitions, configs }) {
    const configEntries = Object.entries(configs || {}).map(([name, value]) => ({ name, value }))
    try {
      await this.admin.createTopics({
        topics: [{ topic, numPartitions: partitions, replicationFactor: -1, configEntries }],
      })
    } catch (error) {
      // KafkaJS has created the topic, and looks for its leaders: too early, now and then, for Apache Kafka.
      if (error.type !== 'UNKNOWN_TOPIC_OR_PARTITION') {
        throw error
      }
    }
  }

  async partitionCount({ topic }) {
    const { topics } = await this.admin.fetchTopicMetadata({ topics: [topic] })
    return { count: topics[0].partitions.length }
  }

  async createPartitions({ topic, count }) {
    await this.admin.createPartitions({ topicPartitions: [{ topic, count }] })
  }

  async topicConfigs({ topic }) {
    const { resources } = await this.admin.describeConfigs({
      includeSynonyms: false,
      resources: [{ type: ConfigResourceTypes.TOPIC, name: topic }],
    })
    return { configs: Object.fromEntries(resources[0].configEntries.map(e => [e.configName, e.configValue])) }
  }

  // KafkaJS can only replace all configs of a topic.
  async alterTopicConfig({ topic, configs }) {
    const configEntries = Object.entries({ 'retention.ms': '-1', ...configs }).map(([name, value]) => ({ name, value }))
    await this.admin.alterConfigs({
      validateOnly: false,
      resources: [{ type: ConfigResourceTypes.TOPIC, name: topic, configEntries }],
    })
  }

  async deleteTopic({ topic }) {
    await this.admin.deleteTopics({ topics: [topic] })
  }

  async groups() {
    const { groups } = await this.admin.listGroups()
    return { groups: groups.map(group => group.groupId) }
  }

  async describeGroup({ group }) {
    const { groups } = await this.admin.describeGroups([group])
    return { state: groups[0].state, count: groups[0].members.length }
  }

  async deleteGroup({ group }) {
    await this.admin.deleteGroups([group])
  }

  async produce({ topic, codec, records }) {
    const producer = this.kafka.producer({
      idempotent: true,
      maxInFlightRequests: 1,
      createPartitioner: Partitioners.DefaultPartitioner,
    })
    await producer.connect()
    const messages = records.map(record => ({
      partition: record.partition,
      timestamp: String(record.timestamp),
      key: decode(record.key),
      value: decode(record.value),
      headers: decodeHeaders(record.headers),
    }))
    const acked = await producer.sendBatch({
      acks: -1,
      compression: COMPRESSION[codec],
      topicMessages: [{ topic, messages }],
    })
    await producer.disconnect()
    // One batch a partition, of which KafkaJS gives the first offset.
    const next = new Map(acked.map(({ partition, baseOffset }) => [partition, Number(baseOffset)]))
    const offsets = records.map(({ partition }) => {
      const offset = next.get(partition)
      if (offset === undefined) {
        // So it happens when a partition moves to a broker that has already answered for others.
        throw new Error(`KafkaJS reports success, but sent nothing to partition ${partition}`)
      }
      next.set(partition, offset + 1)
      return offset
    })
    return { offsets }
  }

  // KafkaJS answers with the partition's end where no record has such a timestamp.
  async offsets({ topic, partitions, timestamp }) {
    const field = { [EARLIEST]: 'low', [LATEST]: 'high' }[timestamp]
    const offsets = Array(partitions).fill(NO_OFFSET)
    const ends = await this.admin.fetchTopicOffsets(topic)
    if (field) {
      ends.forEach(end => (offsets[end.partition] = Number(end[field])))
      return { offsets }
    }
    for (const { partition, offset } of await this.admin.fetchTopicOffsetsByTimestamp(topic, timestamp)) {
      const { high } = ends.find(end => end.partition === partition)
      offsets[partition] = offset === high ? NO_OFFSET : Number(offset)
    }
    return { offsets }
  }

  consumer(groupId) {
    return this.kafka.consumer({
      groupId,
      sessionTimeout: SESSION_MS,
      rebalanceTimeout: REBALANCE_MS,
      heartbeatInterval: HEARTBEAT_MS,
      maxBytesPerPartition: MAX_BYTES,
      maxWaitTimeInMs: FETCH_WAIT_MS,
    })
  }

  // KafkaJS reads as a member of a group only.
  async read(request) {
    const { offsets: ends } = await this.offsets({ ...request, timestamp: LATEST })
    const { offsets: starts } = await this.offsets(request)
    let remaining = 0
    const member = new Member(this.consumer(`${request.topic}-read-${process.pid}-${this.reads++}`), request.topic)
    await member.join()
    await member.owns(request.partitions)
    starts.forEach((start, partition) => {
      const offset = start === NO_OFFSET ? ends[partition] : start
      member.seek({ partition, offset })
      remaining += ends[partition] - offset
    })
    const records = await this.take(member, remaining)
    await member.leave()
    return { records }
  }

  async readGroup({ topic, group, count }) {
    const member = new Member(this.consumer(group), topic)
    await member.join()
    const records = await this.take(member, count)
    await member.commit()
    await member.leave()
    return { records }
  }

  async take(member, count) {
    const records = []
    while (records.length < count) {
      records.push(...(await member.poll({ count: count - records.length, waitMillis: 1000 })).records)
    }
    return records
  }

  async join({ member, topic, group }) {
    const joined = new Member(this.consumer(group), topic)
    this.members.set(member, joined)
    await joined.join()
  }

  async answer(request) {
    await this.connected
    const member = this.members.get(request.member)
    if (member && request.op !== 'join') {
      return member[request.op](request)
    }
    return this[request.op](request)
  }
}

async function main() {
  await new Promise(resolve => ZstdCodec.run(zstd => resolve(plugIn(zstd))))
  const driver = new Driver(process.argv[2])
  for await (const line of readline.createInterface({ input: process.stdin, crlfDelay: Infinity })) {
    let response
    try {
      response = (await driver.answer(JSON.parse(line))) || {}
    } catch (error) {
      response = { error: error.stack }
    }
    process.stdout.write(JSON.stringify(response) + '\n')
  }
  process.exit(0)
}

main()

//go:build mutants

package postgres_test

import (
	"context"
	"strings"
	"testing"

	"github.com/streamhouse/streamhouse/metadata/postgres"
	"github.com/streamhouse/streamhouse/segment"
)

// mutant is one mistake in the commit, made by replacing parts of its text.
type mutant struct {
	name string
	// replace are pairs of old and new text of commit_objects; old may be
	// "from…to", which is all between the two, with from.
	replace []string
	// noBackstop drops the primary key of extents, which would hide the mistake.
	noBackstop bool
	// claimByQuery claims a name by asking whether it is in the index.
	claimByQuery bool
}

// dawdle makes a commit take a while between what it reads and what it writes.
const dawdle = "    PERFORM pg_sleep(0.002);\n    -- 6."

// mixed locks and reads in one statement, with its one snapshot.
const mixed = `-- 3. and 4. at once.
    now_ms := floor(extract(epoch FROM clock_timestamp()) * 1000);
    WITH locked AS MATERIALIZED (
        SELECT t.* FROM partitions t JOIN unnest(topic_ids, partition_ids) AS i(topic_id, partition)
            ON t.topic_id = i.topic_id AND t.partition = i.partition
        ORDER BY t.topic_id, t.partition FOR NO KEY UPDATE OF t
    ), led_rows AS MATERIALIZED (
        SELECT array_agg(CASE WHEN t.leader_agent_id = agent THEN t.leader_epoch END ORDER BY i.n) AS led,
               array_agg(t.high_watermark ORDER BY i.n) AS high, array_agg(t.log_start_offset ORDER BY i.n) AS starts
        FROM unnest(topic_ids, partition_ids) WITH ORDINALITY AS i(topic_id, partition, n)
        LEFT JOIN locked t ON t.topic_id = i.topic_id AND t.partition = i.partition
    ), producer_rows AS (
        SELECT array_agg(s.producer_epoch ORDER BY i.n) AS epochs,
               array_agg(s.last_sequences[cardinality(s.last_sequences)] ORDER BY i.n) AS sequences
        FROM unnest(producer_partitions, producer_ids) WITH ORDINALITY AS i(p, id, n)
        LEFT JOIN producers s ON s.topic_id = topic_ids[i.p] AND s.partition = partition_ids[i.p] AND s.producer_id = i.id
    )
    SELECT l.led, l.high, l.starts, r.epochs, r.sequences INTO led, high, starts, epochs, sequences
    FROM led_rows l, producer_rows r;

    `

// TestMutants shows that the torture catches each of these mistakes.
func TestMutants(t *testing.T) {
	for _, m := range []mutant{
		{name: "no row lock", noBackstop: true, replace: []string{"PERFORM FROM unnest(topic_ids…-- 4.", "", "    -- 6.", dawdle}},
		{name: "key share lock", noBackstop: true, replace: []string{"FOR NO KEY UPDATE OF t", "FOR KEY SHARE OF t", "    -- 6.", dawdle}},
		{name: "lock and read in one statement", replace: []string{"-- 3. The locks…-- 5.", mixed, "    -- 6.", dawdle}},
		{name: "no fence", replace: []string{"IF led[p] IS DISTINCT FROM batch_leader_epochs[i] THEN", "led[p] := coalesce(led[p], 0); IF false THEN"}},
		{name: "leader epoch not compared", replace: []string{"IF led[p] IS DISTINCT FROM batch_leader_epochs[i] THEN", "IF led[p] IS NULL THEN"}},
		{name: "duplicates not checked", replace: []string{"ELSIF batch_sequences[i] <> (sequences[pr]::bigint + 1) & 2147483647 THEN", "ELSIF false THEN"}},
		{name: "results not stored", replace: []string{"SET results = r.results", "SET results = NULL"}},
		{name: "duplicates without their offset", replace: []string{"base_offsets[i] := earlier.base_offset;", ""}},
		{name: "claims not looked at", replace: []string{"is_new[earlier.n] := false;", "is_new[earlier.n] := earlier.state = 'deleting';"}},
		{name: "claim by a query", claimByQuery: true},
	} {
		t.Run(m.name, func(t *testing.T) {
			tt := newDisturbedTorture(t)
			m.install(t, tt)
			tt.run(tortureCommits)
			if !tt.failed() {
				t.Fatal("the torture did not notice")
			}
			t.Logf("caught: %s", tt.wrong[0])
		})
	}
}

// install puts the mistake in place of what is right.
func (m *mutant) install(t *testing.T, tt *torture) {
	t.Helper()
	var text string
	if err := tt.admin.QueryRow(t.Context(), `SELECT pg_get_functiondef('commit_objects'::regproc)`).Scan(&text); err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(m.replace); i += 2 {
		text = substitute(t, text, m.replace[i], m.replace[i+1])
	}
	statements := []string{text}
	if m.noBackstop {
		statements = append(statements, `ALTER TABLE extents DROP CONSTRAINT extents_pkey`)
	}
	for _, s := range statements {
		if _, err := tt.admin.Exec(t.Context(), s); err != nil {
			t.Fatal(err)
		}
	}
	if m.claimByQuery {
		tt.claim = func(ctx context.Context, _ *postgres.Store, id segment.ID) (orphan bool, err error) {
			err = tt.admin.QueryRow(ctx, `SELECT NOT EXISTS (SELECT FROM extents WHERE object_id = $1)`, id[:]).Scan(&orphan)
			return orphan, err
		}
	}
}

// substitute replaces old, or from…to, which must be there.
func substitute(t *testing.T, text, old, with string) string {
	t.Helper()
	if from, to, ok := strings.Cut(old, "…"); ok {
		begin := strings.Index(text, from)
		end := strings.Index(text, to)
		if begin < 0 || end < begin {
			t.Fatalf("the commit has no part %q", old)
		}
		return text[:begin] + with + text[end:]
	}
	if strings.Count(text, old) != 1 {
		t.Fatalf("the commit has not one part %q", old)
	}
	return strings.Replace(text, old, with, 1)
}

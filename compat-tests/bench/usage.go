package bench

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"
)

// CPUTime is the user and system time that a process has used so far. The kernel counts it in ticks of 10 ms.
func CPUTime(pid int) (time.Duration, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, fmt.Errorf("read CPU time: %w", err)
	}
	return parseCPUTime(string(stat))
}

// parseCPUTime reads utime and stime, fields 14 and 15 of proc(5)'s stat. Field 2, the program's name in parentheses,
// may hold anything.
func parseCPUTime(stat string) (time.Duration, error) {
	const (
		afterName      = 3 // number of the first field after the name
		utime          = 14
		ticksPerSecond = 100 // USER_HZ, the same on all of Linux' architectures but alpha
	)
	fields := strings.Fields(stat[strings.LastIndexByte(stat, ')')+1:])
	if len(fields) <= utime+1-afterName {
		return 0, fmt.Errorf("read CPU time: %d fields after the name in %q", len(fields), stat)
	}
	var ticks int64
	for _, field := range fields[utime-afterName : utime+2-afterName] {
		n, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("read CPU time: %w", err)
		}
		ticks += n
	}
	return time.Duration(ticks) * time.Second / ticksPerSecond, nil
}

// ResidentMiB is the memory of a process that is in RAM.
func ResidentMiB(pid int) (float64, error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, fmt.Errorf("read resident memory: %w", err)
	}
	for line := range strings.Lines(string(status)) {
		if value, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kib, err := strconv.ParseFloat(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 64)
			if err != nil {
				return 0, fmt.Errorf("read resident memory: %w", err)
			}
			return kib / 1024, nil
		}
	}
	return 0, fmt.Errorf("read resident memory: no VmRSS in %q", status)
}

// Metrics are an agent's, by name and labels as exposed: go_goroutines, streamhouse_kafka_requests_total{api="Fetch"}.
type Metrics map[string]float64

// Scrape reads the metrics of the agent whose admin listener is at address.
func Scrape(ctx context.Context, address string) (Metrics, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/metrics", nil)
	if err != nil {
		return nil, fmt.Errorf("scrape: %w", err)
	}
	request.Close = true // no idle connection stays behind
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, fmt.Errorf("scrape: %w", err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("scrape: %s", response.Status)
	}
	return parseMetrics(response.Body)
}

// parseMetrics reads Prometheus' text format, as client_golang writes it: no timestamps.
func parseMetrics(r io.Reader) (Metrics, error) {
	metrics := Metrics{}
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		line := lines.Text()
		if line == "" || line[0] == '#' {
			continue
		}
		end := strings.LastIndexByte(line, ' ')
		if end < 0 {
			return nil, fmt.Errorf("scrape: no value in %q", line)
		}
		value, err := strconv.ParseFloat(line[end+1:], 64)
		if err != nil {
			return nil, fmt.Errorf("scrape: %w", err)
		}
		metrics[line[:end]] = value
	}
	return metrics, lines.Err()
}

// Sum adds up a metric over all its labels.
func (m Metrics) Sum(name string) float64 {
	sum := 0.0
	for key, value := range m {
		if key == name || strings.HasPrefix(key, name+"{") {
			sum += value
		}
	}
	return sum
}

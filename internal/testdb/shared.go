package testdb

import (
	"errors"
	"sync"
)

// kept holds the servers that this process started to share among its tests. A
// process that nobody holds would lose its pipe to the garbage collector, and a
// server whose pipe closes ends.
var kept struct {
	sync.Mutex
	processes []*process
}

func keep(p *process) {
	kept.Lock()
	defer kept.Unlock()
	kept.processes = append(kept.processes, p)
}

// StartShared starts the servers of a whole test run, for tools/testenv. It
// returns the variables to add to the environment of what runs the tests, and a
// function that ends the servers.
func StartShared() (environment []string, stop func() error, err error) {
	postgres, postgresAddress, err := newPostgres(sharedPostgresSettings...)
	if err != nil {
		return nil, nil, err
	}
	s3, s3Address, err := newS3()
	if err != nil {
		return nil, nil, errors.Join(err, postgres.close())
	}
	accessKey, secretKey := s3Credentials()
	environment = []string{
		PostgresVariable + "=" + postgresURL(postgresAddress),
		S3Variable + "=" + s3Endpoint(s3Address),
		"AWS_ACCESS_KEY_ID=" + accessKey,
		"AWS_SECRET_ACCESS_KEY=" + secretKey,
	}
	return environment, func() error { return errors.Join(postgres.close(), s3.close()) }, nil
}

package s3

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"

	"github.com/minio/minio-go/v7"

	"github.com/streamhouse/streamhouse/segment/objstore"
)

// retriableCodes are S3's codes for what may pass, where the HTTP status does
// not say so.
var retriableCodes = map[string]bool{
	"BadDigest":                   true, // damaged on the way
	"IncompleteBody":              true,
	"RequestTimeout":              true, // of the body, with status 400
	"ExpiredToken":                true, // the next attempt fetches another
	"ConditionalRequestConflict":  true, // two conditional PUTs of one key at once
	"OperationAborted":            true,
	"SlowDown":                    true,
	"XAmzContentChecksumMismatch": true,
	"XAmzContentSHA256Mismatch":   true,
}

// classify gives an error of minio-go the meaning that objstore.Store has for
// it.
func classify(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return fmt.Errorf("%w: %w", ctx.Err(), err)
	}
	if errors.Is(err, objstore.ErrRange) {
		return err
	}
	var response minio.ErrorResponse
	if !errors.As(err, &response) {
		// There was no answer, or not all of it.
		var untrusted *tls.CertificateVerificationError
		if errors.As(err, &untrusted) {
			return err
		}
		return fmt.Errorf("%w: %w", objstore.ErrUnavailable, err)
	}
	err = fmt.Errorf("%w (%s)", err, response.Code)
	switch status := response.StatusCode; {
	case retriableCodes[response.Code]:
		return fmt.Errorf("%w: %w", objstore.ErrUnavailable, err)
	case response.Code == minio.NoSuchBucket:
		return err
	case status == http.StatusNotFound || response.Code == minio.NoSuchKey:
		return fmt.Errorf("%w: %w", objstore.ErrNotFound, err)
	case status == http.StatusPreconditionFailed:
		return fmt.Errorf("%w: %w", objstore.ErrExists, err)
	case status == http.StatusRequestedRangeNotSatisfiable:
		return fmt.Errorf("%w: %w", objstore.ErrRange, err)
	case status == http.StatusConflict, status == http.StatusRequestTimeout, status == http.StatusTooManyRequests,
		status >= 500 && status != http.StatusNotImplemented:
		return fmt.Errorf("%w: %w", objstore.ErrUnavailable, err)
	}
	return err
}

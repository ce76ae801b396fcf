package s3

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"strings"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/lifecycle"

	"github.com/streamhouse/streamhouse/segment/objstore"
)

// Check implements objstore.Store. Beside what Probe does, it refuses a bucket
// whose own rules would delete segments.
func (s *Store) Check(ctx context.Context) error {
	err := objstore.Probe(ctx, s)
	if err == nil {
		err = s.checkLifecycle(ctx)
	}
	if err == nil {
		return nil
	}
	if advice := s.advice(err); advice != "" && ctx.Err() == nil {
		return fmt.Errorf("object store %s: %w: %s", s, err, advice)
	}
	return fmt.Errorf("object store %s: %w", s, err)
}

// checkLifecycle fails if the bucket has a rule that would expire objects under
// the store's prefix. It lets it pass if the rules cannot be read: not every
// store has them, and not every operator grants that.
func (s *Store) checkLifecycle(ctx context.Context) error {
	rules, err := s.client.GetBucketLifecycle(ctx, s.options.bucket)
	if err != nil {
		return ctx.Err()
	}
	for _, rule := range rules.Rules {
		if s.expiredBy(&rule) {
			return fmt.Errorf("the bucket's lifecycle rule %q deletes objects under %q, where the log lies: "+
				"disable it or give StreamHouse another prefix; retention is the topics' affair", rule.ID, s.options.prefix)
		}
	}
	return nil
}

// expiredBy says whether the rule deletes some of the store's objects. They
// have no tags, so a rule that asks for one does not.
func (s *Store) expiredBy(rule *lifecycle.Rule) bool {
	expires := !rule.Expiration.IsDaysNull() || !rule.Expiration.IsDateNull() || !rule.AllVersionsExpiration.IsNull()
	if rule.Status != "Enabled" || !expires {
		return false
	}
	filter := rule.RuleFilter
	if !filter.Tag.IsEmpty() || len(filter.And.Tags) > 0 {
		return false
	}
	prefix := rule.Prefix + filter.Prefix + filter.And.Prefix // one at most is set
	return strings.HasPrefix(prefix, s.options.prefix) || strings.HasPrefix(s.options.prefix, prefix)
}

// advice says what an operator can do about err, "" if nothing is known.
func (s *Store) advice(err error) string {
	var response minio.ErrorResponse
	if !errors.As(err, &response) {
		var untrusted *tls.CertificateVerificationError
		if errors.As(err, &untrusted) {
			return "the endpoint's certificate is not trusted: install its authority's certificate on this machine"
		}
		return "nothing answers at " + s.options.endpoint() + ": correct the endpoint in the URL, or start the server there"
	}
	switch response.Code {
	case minio.NoSuchBucket:
		return "create the bucket " + s.options.bucket + ", or correct its name in the URL"
	case minio.AccessDenied:
		return "give these credentials s3:GetObject, s3:PutObject, s3:DeleteObject and s3:ListBucket for the bucket; " +
			"if there are none, set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or give the machine a role"
	case minio.InvalidAccessKeyID, minio.SignatureDoesNotMatch, "InvalidToken":
		return "the credentials are wrong: correct AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, the file, or the URL that holds them"
	case "RequestTimeTooSkewed":
		return "this machine's clock is wrong: synchronise it"
	case minio.AuthorizationHeaderMalformed, minio.InvalidRegion, "PermanentRedirect":
		return "the bucket is in another region: correct region in the URL"
	case minio.NotImplemented:
		return "the store lacks something that StreamHouse needs; if it is old, try signed_payload=true in the URL"
	}
	return ""
}

package s3

import (
	"cmp"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strconv"
	"strings"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
	"github.com/minio/minio-go/v7/pkg/s3utils"

	"github.com/streamhouse/streamhouse/segment/objstore"
)

// Options say which bucket a Store uses, and how. ParseURL makes them.
type Options struct {
	bucket        string
	prefix        string // "" or with a slash at its end
	host          string
	secure        bool
	region        string
	lookup        minio.BucketLookupType
	signedPayload bool
	credentials   *credentials.Credentials
}

// amazonHost is where S3 itself is, from where minio-go finds the region's.
const amazonHost = "s3.amazonaws.com"

// ParseURL reads a URL of the form
//
//	s3://bucket/prefix?endpoint=http://127.0.0.1:9000&region=us-east-1
//
// All parameters may be left out:
//
//	endpoint        where the server is, http or https. Default: S3 itself.
//	region          Default: AWS_REGION, AWS_DEFAULT_REGION, us-east-1.
//	path_style      true: the bucket is in the path, false: in the host's name.
//	                Default: false for S3 itself, true for others.
//	signed_payload  true: uploads are signed and checked as servers without
//	                checksums know it, for three times the CPU. Default: false.
//	access_key, secret_key
//	                Default: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and
//	                AWS_SESSION_TOKEN, then ~/.aws/credentials, then the
//	                machine's role.
//
// Errors never quote the URL, which may hold a secret.
func ParseURL(u *url.URL) (Options, error) {
	o := Options{bucket: u.Host, host: amazonHost, secure: true}
	if o.bucket == "" || u.User != nil || u.Fragment != "" {
		return Options{}, errors.New("object store URL: must be like s3://bucket/prefix?endpoint=http://127.0.0.1:9000&region=us-east-1")
	}
	if err := s3utils.CheckValidBucketName(o.bucket); err != nil {
		return Options{}, fmt.Errorf("object store URL: bucket %q: %w", o.bucket, err)
	}
	if o.prefix = strings.Trim(u.Path, "/"); o.prefix != "" {
		if err := objstore.CheckKey(o.prefix); err != nil {
			return Options{}, fmt.Errorf("object store URL: prefix: %w", err)
		}
		o.prefix += "/"
	}
	query, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return Options{}, errors.New("object store URL: the parameters behind ? are malformed: escape special characters as %XX")
	}
	var accessKey, secretKey string
	for name, values := range query {
		value := values[len(values)-1]
		switch name {
		case "endpoint":
			err = o.setEndpoint(value)
		case "region":
			o.region = value
		case "path_style":
			err = o.setPathStyle(value)
		case "signed_payload":
			o.signedPayload, err = strconv.ParseBool(value)
		case "access_key":
			accessKey = value
		case "secret_key":
			secretKey = value
		default:
			err = errors.New("there is no such parameter")
		}
		if err != nil {
			return Options{}, fmt.Errorf("object store URL: parameter %s: %w", name, err)
		}
	}
	if (accessKey == "") != (secretKey == "") {
		return Options{}, errors.New("object store URL: access_key and secret_key go together")
	}
	o.region = cmp.Or(o.region, os.Getenv("AWS_REGION"), os.Getenv("AWS_DEFAULT_REGION"), "us-east-1")
	o.credentials = findCredentials(accessKey, secretKey)
	return o, nil
}

func (o *Options) setEndpoint(value string) error {
	e, err := url.Parse(value)
	if err != nil || e.Host == "" || (e.Scheme != "http" && e.Scheme != "https") || strings.Trim(e.Path, "/") != "" {
		return errors.New("must be like http://127.0.0.1:9000")
	}
	o.host, o.secure = e.Host, e.Scheme == "https"
	return nil
}

func (o *Options) setPathStyle(value string) error {
	pathStyle, err := strconv.ParseBool(value)
	o.lookup = minio.BucketLookupDNS
	if pathStyle {
		o.lookup = minio.BucketLookupPath
	}
	return err
}

func findCredentials(accessKey, secretKey string) *credentials.Credentials {
	if accessKey != "" {
		return credentials.NewStaticV4(accessKey, secretKey, "")
	}
	return credentials.NewChainCredentials([]credentials.Provider{
		&credentials.EnvAWS{},
		&credentials.FileAWSCredentials{},
		&credentials.IAM{},
	})
}

func (o *Options) endpoint() string {
	if o.secure {
		return "https://" + o.host
	}
	return "http://" + o.host
}

// String names the bucket and the endpoint, and holds no secret.
func (o Options) String() string {
	return "s3://" + o.bucket + "/" + o.prefix + " at " + o.endpoint()
}

// The client of RFC 6962 that auditors of certificate transparency logs use.
module mayfly/tests/clients/ctclient

go 1.26.0

require github.com/google/certificate-transparency-go v1.3.3

require (
	github.com/go-logr/logr v1.4.3 // indirect
	github.com/spf13/cobra v1.10.2 // indirect
	github.com/spf13/pflag v1.0.10 // indirect
	github.com/transparency-dev/merkle v0.0.2 // indirect
	golang.org/x/crypto v0.48.0 // indirect
	google.golang.org/protobuf v1.36.11 // indirect
	k8s.io/klog/v2 v2.130.1 // indirect
)

tool github.com/google/certificate-transparency-go/client/ctclient

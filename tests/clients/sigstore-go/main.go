// A command line for sigstore-go, the library below cosign and others.
//
//	sigstore-go sign KEY SIGNING_CONFIG TRUSTED_ROOT TOKEN FILE BUNDLE    a file; KEY is the name of an algorithm
//	sigstore-go attest KEY SIGNING_CONFIG TRUSTED_ROOT TOKEN FILE BUNDLE  a file as the payload of an attestation
//	sigstore-go verify TIME TRUSTED_ROOT IDENTITY ISSUER BUNDLE [FILE]    FILE: of a signature, not of an attestation
//
// TIME is `signed`, which asks for a signature log and a timestamp authority, or `current`, which asks for neither.
//
// A refusal is one line on standard error.
package main

import (
	"fmt"
	"os"
	"time"

	"github.com/sigstore/protobuf-specs/gen/pb-go/common/v1"
	"github.com/sigstore/sigstore-go/pkg/bundle"
	"github.com/sigstore/sigstore-go/pkg/root"
	"github.com/sigstore/sigstore-go/pkg/sign"
	"github.com/sigstore/sigstore-go/pkg/verify"
	"google.golang.org/protobuf/encoding/protojson"
)

const (
	payloadType = "application/vnd.in-toto+json"
	timeout     = 30 * time.Second
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(arguments []string) error {
	switch {
	case len(arguments) == 7 && arguments[0] == "sign":
		return create(arguments[1:], func(data []byte) sign.Content { return &sign.PlainData{Data: data} })
	case len(arguments) == 7 && arguments[0] == "attest":
		return create(arguments[1:], func(data []byte) sign.Content {
			return &sign.DSSEData{Data: data, PayloadType: payloadType}
		})
	case len(arguments) >= 6 && arguments[0] == "verify":
		return check(arguments[1] == "signed", arguments[2], arguments[3], arguments[4], arguments[5], arguments[6:])
	default:
		return fmt.Errorf("usage: sign, attest or verify; see the top of main.go")
	}
}

// create signs what is made of a file, with the services that the signing config names, and writes the bundle.
func create(arguments []string, content func([]byte) sign.Content) error {
	key, configPath, rootPath, token, file, bundlePath :=
		arguments[0], arguments[1], arguments[2], arguments[3], arguments[4], arguments[5]
	algorithm, known := v1.PublicKeyDetails_value[key]
	if !known {
		return fmt.Errorf("%s: no such algorithm", key)
	}
	config, err := root.NewSigningConfigFromPath(configPath)
	if err != nil {
		return err
	}
	options, err := services(config, token)
	if err != nil {
		return err
	}
	if options.TrustedRoot, err = root.NewTrustedRootFromPath(rootPath); err != nil {
		return err
	}
	keypair, err := sign.NewEphemeralKeypair(&sign.EphemeralKeypairOptions{Algorithm: v1.PublicKeyDetails(algorithm)})
	if err != nil {
		return err
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	signed, err := sign.Bundle(content(data), keypair, options)
	if err != nil {
		return err
	}
	text, err := protojson.Marshal(signed)
	if err != nil {
		return err
	}
	return os.WriteFile(bundlePath, text, 0o600)
}

// services is the CA, and the signature log and timestamp authority that there are.
func services(config *root.SigningConfig, token string) (sign.BundleOptions, error) {
	var options sign.BundleOptions
	now := time.Now()
	ca, err := root.SelectService(config.FulcioCertificateAuthorityURLs(), sign.FulcioAPIVersions, now)
	if err != nil {
		return options, err
	}
	options.CertificateProvider = sign.NewFulcio(&sign.FulcioOptions{BaseURL: ca.URL, Timeout: timeout, Retries: 1})
	options.CertificateProviderOptions = &sign.CertificateProviderOptions{IDToken: token}

	if urls := config.TimestampAuthorityURLs(); len(urls) > 0 {
		chosen, err := root.SelectServices(urls, config.TimestampAuthorityURLsConfig(), sign.TimestampAuthorityAPIVersions, now)
		if err != nil {
			return options, err
		}
		for _, one := range chosen {
			authority := sign.NewTimestampAuthority(&sign.TimestampAuthorityOptions{URL: one.URL, Timeout: timeout, Retries: 1})
			options.TimestampAuthorities = append(options.TimestampAuthorities, authority)
		}
	}
	if urls := config.RekorLogURLs(); len(urls) > 0 {
		chosen, err := root.SelectServices(urls, config.RekorLogURLsConfig(), sign.RekorAPIVersions, now)
		if err != nil {
			return options, err
		}
		for _, one := range chosen {
			log := sign.NewRekor(&sign.RekorOptions{BaseURL: one.URL, Timeout: timeout, Retries: 1, Version: one.MajorAPIVersion})
			options.TransparencyLogs = append(options.TransparencyLogs, log)
		}
	}
	return options, nil
}

// check verifies a bundle: with the log's timestamp of the certificate, and with a signature log and a timestamp authority,
// or else at the current time.
func check(isSigned bool, rootPath, identity, issuer, bundlePath string, files []string) error {
	trusted, err := root.NewTrustedRootFromPath(rootPath)
	if err != nil {
		return err
	}
	signed, err := bundle.LoadJSONFromPath(bundlePath)
	if err != nil {
		return err
	}
	options := []verify.VerifierOption{verify.WithSignedCertificateTimestamps(1)}
	if isSigned {
		options = append(options, verify.WithTransparencyLog(1), verify.WithSignedTimestamps(1))
	} else {
		options = append(options, verify.WithCurrentTime())
	}
	verifier, err := verify.NewVerifier(trusted, options...)
	if err != nil {
		return err
	}
	who, err := verify.NewShortCertificateIdentity(issuer, "", identity, "")
	if err != nil {
		return err
	}
	artifact := verify.WithoutArtifactUnsafe()
	if len(files) > 0 {
		file, err := os.Open(files[0])
		if err != nil {
			return err
		}
		defer file.Close()
		artifact = verify.WithArtifact(file)
	}
	_, err = verifier.Verify(signed, verify.NewPolicy(artifact, verify.WithCertificateIdentity(who)))
	return err
}

// Writes what Fulcio puts into certificates for the tokens of issuers, as JSON on standard output:
//
//	go run . ../../../config/identity.public.yaml fixtures.json > vectors.json
//	go run . types.yaml fixtures.json types.json > types.vectors.json
//
// Of several files with fixtures the kinds count together, and the tokens of the last.
//
// The configuration is read, and the identity is made of the claims, by Fulcio's own packages; the values are those of a
// certificate that Go's crypto/x509 makes of the result. In names and values each character stands for one octet.
package main

import (
	"context"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"maps"
	"math/big"
	"os"
	"reflect"
	"strings"
	"unsafe"

	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/sigstore/fulcio/pkg/challenges"
	"github.com/sigstore/fulcio/pkg/config"
	"github.com/sigstore/fulcio/pkg/identity"
	"github.com/sigstore/fulcio/pkg/identity/chainguard"
	"github.com/sigstore/fulcio/pkg/identity/codefresh"
	"github.com/sigstore/fulcio/pkg/log"
)

type fixtures struct {
	// Claims of a kind of token.
	Kinds map[string]map[string]any `json:"kinds"`
	// The tokens: an issuer, the kind, and claims that differ; null takes a claim away.
	Tokens []struct {
		Issuer string         `json:"iss"`
		Kind   string         `json:"kind"`
		Claims map[string]any `json:"claims"`
	} `json:"tokens"`
}

type vector struct {
	Claims    map[string]any `json:"claims"`
	Challenge string         `json:"challenge"`
	// The value of the subject alternative name extension.
	Name string `json:"subject_alternative_name"`
	// The values of the Sigstore extensions, in their order, each with the last arc of its identifier.
	Extensions []extension `json:"extensions"`
}

type extension struct {
	Number int    `json:"number"`
	Value  string `json:"value"`
}

// Takes a token as verified, which the package does not provide for.
func verified(claims map[string]any) *oidc.IDToken {
	octets := must(json.Marshal(claims))
	token := &oidc.IDToken{Issuer: claims["iss"].(string), Subject: claims["sub"].(string)}
	member := reflect.ValueOf(token).Elem().FieldByName("claims")
	*(*[]byte)(unsafe.Pointer(member.UnsafeAddr())) = octets
	return token
}

func principal(ctx context.Context, token *oidc.IDToken) (identity.Principal, error) {
	if issuer, ok := config.FromContext(ctx).GetIssuer(token.Issuer); ok {
		switch issuer.Type {
		case config.IssuerTypeChainguard:
			return chainguard.PrincipalFromIDToken(ctx, token)
		case config.IssuerTypeCodefreshWorkflow:
			return codefresh.WorkflowPrincipalFromIDToken(ctx, token)
		}
	}
	return challenges.PrincipalFromIDToken(ctx, token)
}

func run(ctx context.Context, claims map[string]any) (v vector) {
	p, err := principal(ctx, verified(claims))
	if err != nil {
		panic(fmt.Errorf("%v: %w", claims["iss"], err))
	}
	template := x509.Certificate{SerialNumber: big.NewInt(1)}
	if err := p.Embed(ctx, &template); err != nil {
		panic(fmt.Errorf("%v: %w", claims["iss"], err))
	}
	key := ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))
	octets := must(x509.CreateCertificate(nil, &template, &template, key.Public(), key))
	certificate := must(x509.ParseCertificate(octets))
	v.Claims, v.Challenge = claims, p.Name(ctx)
	for _, e := range certificate.Extensions {
		switch id := e.Id.String(); {
		case id == "2.5.29.17":
			v.Name = text(e.Value)
		case strings.HasPrefix(id, "1.3.6.1.4.1.57264.1."):
			v.Extensions = append(v.Extensions, extension{e.Id[len(e.Id)-1], text(e.Value)})
		}
	}
	return v
}

func text(octets []byte) string {
	var text strings.Builder
	for _, octet := range octets {
		text.WriteRune(rune(octet))
	}
	return text.String()
}

func must[T any](value T, err error) T {
	if err != nil {
		panic(err)
	}
	return value
}

func main() {
	log.ConfigureLogger("prod")
	cfg := must(config.Load(os.Args[1]))
	ctx := config.With(context.Background(), cfg)
	var f fixtures
	for _, path := range os.Args[2:] {
		f.Tokens = nil
		if err := json.Unmarshal(must(os.ReadFile(path)), &f); err != nil {
			panic(err)
		}
	}
	var vectors []vector
	for _, token := range f.Tokens {
		claims := maps.Clone(f.Kinds[token.Kind])
		claims["iss"] = token.Issuer
		maps.Copy(claims, token.Claims)
		maps.DeleteFunc(claims, func(_ string, value any) bool { return value == nil })
		vectors = append(vectors, run(ctx, claims))
	}
	encoder := json.NewEncoder(os.Stdout)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", " ")
	if err := encoder.Encode(vectors); err != nil {
		panic(err)
	}
}

import dev.sigstore.AlgorithmRegistry.SigningAlgorithm;
import dev.sigstore.KeylessSigner;
import dev.sigstore.KeylessVerifier;
import dev.sigstore.SigningConfigProvider;
import dev.sigstore.TrustedRootProvider;
import dev.sigstore.VerificationOptions;
import dev.sigstore.VerificationOptions.CertificateMatcher;
import dev.sigstore.bundle.Bundle;
import dev.sigstore.fulcio.client.CertificateRequest;
import dev.sigstore.fulcio.client.FulcioClientGrpc;
import dev.sigstore.http.HttpParams;
import dev.sigstore.oidc.client.OidcClients;
import dev.sigstore.oidc.client.TokenStringOidcClient;
import dev.sigstore.strings.StringMatcher;
import dev.sigstore.trustroot.Service;
import dev.sigstore.tuf.RootProvider;
import dev.sigstore.tuf.SigstoreTufClient;
import java.net.URI;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.KeyPairGenerator;
import java.security.Signature;
import java.security.spec.ECGenParameterSpec;
import java.util.Arrays;

/**
 * A command line for sigstore-java.
 *
 * <pre>
 *   sign SIGNING_CONFIG TRUSTED_ROOT TOKEN FILE BUNDLE      over gRPC with TLS, as the signer has it
 *   verify TRUSTED_ROOT IDENTITY ISSUER BUNDLE FILE
 *   sign-by-tuf URL ROOT CACHE TOKEN FILE BUNDLE            with the trust files of a TUF repository
 *   verify-by-tuf URL ROOT CACHE IDENTITY ISSUER BUNDLE FILE
 *   certificate URL TOKEN SUBJECT                           over gRPC in the clear: prints how many certificates came
 * </pre>
 *
 * A refusal is one line on standard error: the messages of the exception and of its causes.
 */
public final class SigstoreClient {
  public static void main(String[] arguments) {
    try {
      run(arguments);
    } catch (Exception exception) {
      var text = new StringBuilder();
      for (Throwable cause = exception; cause != null; cause = cause.getCause()) {
        text.append(text.isEmpty() ? "" : ": ").append(cause.getMessage());
      }
      System.err.println(text);
      System.exit(1);
    }
    // Threads of the libraries may live on.
    System.exit(0);
  }

  private static void run(String[] arguments) throws Exception {
    switch (arguments[0]) {
      case "sign" ->
          sign(
              SigningConfigProvider.from(Path.of(arguments[1])),
              TrustedRootProvider.from(Path.of(arguments[2])),
              rest(arguments, 3));
      case "sign-by-tuf" ->
          sign(
              SigningConfigProvider.from(repository(arguments)),
              TrustedRootProvider.from(repository(arguments)),
              rest(arguments, 4));
      case "verify" ->
          verify(TrustedRootProvider.from(Path.of(arguments[1])), rest(arguments, 2));
      case "verify-by-tuf" ->
          verify(TrustedRootProvider.from(repository(arguments)), rest(arguments, 4));
      case "certificate" -> certificate(arguments);
      default -> throw new IllegalArgumentException("sign, verify or certificate");
    }
  }

  private static String[] rest(String[] arguments, int start) {
    return Arrays.copyOfRange(arguments, start, arguments.length);
  }

  /** The repository that the first three arguments name. */
  private static SigstoreTufClient.Builder repository(String[] arguments) throws Exception {
    return SigstoreTufClient.builder()
        .tufMirror(URI.create(arguments[1]), RootProvider.fromFile(Path.of(arguments[2])))
        .tufCacheLocation(Path.of(arguments[3]));
  }

  private static void sign(
      SigningConfigProvider config, TrustedRootProvider root, String[] arguments) throws Exception {
    var builder =
        KeylessSigner.builder()
            .signingConfigProvider(config)
            .trustedRootProvider(root)
            .signingAlgorithm(SigningAlgorithm.PKIX_ECDSA_P256_SHA_256)
            .enableRekorV2(true)
            .forceCredentialProviders(OidcClients.of(TokenStringOidcClient.from(arguments[0])));
    try (var signer = builder.build()) {
      var bundle = signer.signFile(Path.of(arguments[1]));
      Files.writeString(Path.of(arguments[2]), bundle.toJson());
    }
  }

  private static void verify(TrustedRootProvider root, String[] arguments) throws Exception {
    var matcher =
        CertificateMatcher.fulcio()
            .subjectAlternativeName(StringMatcher.string(arguments[0]))
            .issuer(StringMatcher.string(arguments[1]))
            .build();
    var options = VerificationOptions.builder().addCertificateMatchers(matcher).build();
    var bundle = Bundle.from(Path.of(arguments[2]), StandardCharsets.UTF_8);
    KeylessVerifier.builder()
        .trustedRootProvider(root)
        .build()
        .verify(Path.of(arguments[3]), bundle, options);
  }

  private static void certificate(String[] arguments) throws Exception {
    var generator = KeyPairGenerator.getInstance("EC");
    generator.initialize(new ECGenParameterSpec("secp256r1"));
    var key = generator.generateKeyPair();
    var proof = Signature.getInstance("SHA256withECDSA");
    proof.initSign(key.getPrivate());
    proof.update(arguments[3].getBytes(StandardCharsets.UTF_8));
    var client =
        FulcioClientGrpc.builder()
            .setHttpParams(HttpParams.builder().allowInsecureConnections(true).build())
            .setService(Service.of(URI.create(arguments[1]), 1))
            .build();
    var request = CertificateRequest.newCertificateRequest(key.getPublic(), arguments[2], proof.sign());
    System.out.println(client.signingCertificate(request).getCertificates().size());
  }

  private SigstoreClient() {}
}

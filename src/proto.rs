//! The messages of gRPC, and clients for them, as the build makes them of `proto/`.

/// The descriptors of every message and service: a `FileDescriptorSet`, encoded.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// `dev.sigstore.fulcio.v2`: the certificate authority.
#[expect(
    unused_qualifications,
    clippy::allow_attributes_without_reason,
    reason = "generated"
)]
pub mod fulcio {
    tonic::include_proto!("dev.sigstore.fulcio.v2");
}

/// `grpc.health.v1`: health checks.
#[expect(
    unused_qualifications,
    clippy::allow_attributes_without_reason,
    reason = "generated"
)]
pub mod health {
    tonic::include_proto!("grpc.health.v1");
}

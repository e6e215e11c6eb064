//! Reflection: clients such as grpcurl ask the server what can be called, and need no files of their own.

use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use http::{Request, Response};
use tonic::body::Body;
use tonic::codegen::Service;
use tonic_reflection::server::{Builder, Error};

use crate::proto;

/// Tells which services there are, and what their messages look like.
#[derive(Clone)]
pub struct Reflection(Arc<dyn Fn(Request<Body>) -> Answer + Send + Sync>);

type Answer = BoxFuture<'static, Result<Response<Body>, Infallible>>;

impl Reflection {
    /// Tells of everything in `proto/`.
    ///
    /// # Errors
    /// When the descriptors cannot be read: a defect of the build.
    pub fn new() -> Result<Self, Error> {
        let service = Builder::configure()
            .register_encoded_file_descriptor_set(proto::DESCRIPTORS)
            .build_v1()?;
        Ok(Self(Arc::new(move |request| {
            let mut service = service.clone();
            service.call(request)
        })))
    }

    pub(super) async fn answer(&self, request: Request<Body>) -> Response<Body> {
        let Ok(response) = (self.0)(request).await;
        response
    }
}

impl fmt::Debug for Reflection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reflection").finish_non_exhaustive()
    }
}

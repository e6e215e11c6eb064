//! `grpc.health.v1`: whether certificates can be issued, for those who ask over gRPC.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream;
use http_body::Frame;
use http_body_util::StreamBody;
use tonic::body::Body;

use super::frame;
use crate::api::outcome::Refusal;
use crate::api::{Api, ErrorDetail, ops};
use crate::proto::health::health_check_response::ServingStatus;
use crate::proto::health::{HealthCheckRequest, HealthCheckResponse, HealthListResponse};
use crate::readiness::{INTERVAL, Status};

/// The health of a service; they all stand and fall together.
fn status(api: &Api, service: &str) -> Option<ServingStatus> {
    ops::SERVICES.contains(&service).then(|| {
        if api.is_stopping() || api.readiness.report().status == Status::NotReady {
            ServingStatus::NotServing
        } else {
            ServingStatus::Serving
        }
    })
}

fn response(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse {
        status: status.into(),
    }
}

/// `Check`.
pub(super) fn check(api: &Api, asked: &HealthCheckRequest) -> Result<Bytes, Refusal> {
    let status = status(api, &asked.service).ok_or_else(Refusal::unknown_service)?;
    Ok(frame::framed(&response(status)))
}

/// `List`.
pub(super) fn list(api: &Api) -> Bytes {
    let statuses = ops::SERVICES.iter().filter_map(|service| {
        let status = status(api, service)?;
        Some(((*service).to_owned(), response(status)))
    });
    frame::framed(&HealthListResponse {
        statuses: statuses.collect(),
    })
}

/// `Watch`: the health now, and again whenever it has changed; ends when the server stops.
pub(super) fn watch(api: Arc<Api>, asked: HealthCheckRequest) -> Body {
    let watch = Watch {
        api,
        service: asked.service,
        told: None,
        is_over: false,
    };
    Body::new(StreamBody::new(stream::unfold(watch, |watch| watch.next())))
}

struct Watch {
    api: Arc<Api>,
    service: String,
    told: Option<ServingStatus>,
    is_over: bool,
}

impl Watch {
    async fn next(mut self) -> Option<(Result<Frame<Bytes>, tonic::Status>, Self)> {
        if self.is_over {
            return None;
        }
        loop {
            let is_stopping = self.api.is_stopping();
            let status = status(&self.api, &self.service);
            let status = status.unwrap_or(ServingStatus::ServiceUnknown);
            if self.told != Some(status) {
                self.told = Some(status);
                let message = frame::framed(&response(status));
                return Some((Ok(Frame::data(message)), self));
            }
            if is_stopping {
                self.is_over = true;
                let (status, _) = Refusal::shutting_down().into_status(ErrorDetail::Compatible);
                return Some((Ok(Frame::trailers(frame::trailers(&status))), self));
            }
            // What could have changed is looked at as often.
            tokio::time::sleep(INTERVAL).await;
        }
    }
}

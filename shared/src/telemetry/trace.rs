//! One trace for each request, from its client through both nodes: W3C's trace context in (`traceparent`), OTLP out.
//!
//! [`TraceLayer`] is the outermost layer of a server, and makes the span of a request; whatever runs below it finds its
//! place in the trace ([`record`], [`inject`]), in another task by [`Parent`]. Spans have names, times and sizes, and
//! nothing of what is computed.

use std::{
    pin::Pin,
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::{Context as TaskContext, Poll},
    time::{Duration, Instant, SystemTime},
};

use http::{HeaderMap, Request, Response};
use opentelemetry::{
    Context, KeyValue,
    context::FutureExt,
    propagation::{Extractor, Injector, TextMapPropagator},
    trace::{Link, Span, SpanKind, Status, TraceContextExt, TraceId, Tracer, TracerProvider},
};
use opentelemetry_otlp::{SpanExporter, WithExportConfig};
use opentelemetry_sdk::{
    Resource,
    propagation::TraceContextPropagator,
    trace::{Sampler, SamplingResult, SdkTracer, SdkTracerProvider, ShouldSample},
};
use tonic::metadata::{MetadataKey, MetadataMap, MetadataValue};
use tower::{Layer, Service};

use crate::config::TraceConfig;

/// Where traces go; nowhere without it.
static EXPORT: OnceLock<Export> = OnceLock::new();

/// The share of the requests that are traced whose client has not decided, as the bits of an f64. Below 0 none is, whatever
/// clients have decided.
static SHARE: AtomicU64 = AtomicU64::new(0);

struct Export {
    provider: SdkTracerProvider,
    tracer: SdkTracer,
    propagator: TraceContextPropagator,
    /// As it was configured.
    share: f64,
}

/// Sends the traces of this process where the configuration says. Called within the runtime.
pub fn start(service: &'static str, config: &TraceConfig) -> Result<(), String> {
    let Some(endpoint) = &config.otlp else { return Ok(()) };
    let exporter = SpanExporter::builder().with_tonic().with_endpoint(endpoint).build();
    let exporter = exporter.map_err(|e| format!("trace.otlp: {endpoint}: {e}"))?;
    set_share(Some(config.share));
    let provider = SdkTracerProvider::builder()
        .with_batch_exporter(exporter)
        .with_sampler(Sampler::ParentBased(Box::new(Shared)))
        .with_resource(Resource::builder().with_service_name(service).build())
        .build();
    let tracer = provider.tracer("cleave");
    let (propagator, share) = (TraceContextPropagator::new(), config.share);
    let _ = EXPORT.set(Export { provider, tracer, propagator, share });
    Ok(())
}

/// The share of the requests that are traced whose client has not decided; none where no trace is sent at all.
pub fn share() -> Option<f64> {
    EXPORT.get()?;
    Some(f64::from_bits(SHARE.load(Relaxed))).filter(|share| *share >= 0.0)
}

/// Changes [`share`] while the process runs.
pub fn set_share(share: Option<f64>) {
    SHARE.store(share.unwrap_or(-1.0).to_bits(), Relaxed);
}

/// The share that the configuration gives; none where it names no collector.
pub fn configured_share() -> Option<f64> {
    EXPORT.get().map(|export| export.share)
}

/// Where traces go, unless they are turned off.
fn export() -> Option<&'static Export> {
    EXPORT.get().filter(|_| share().is_some())
}

/// Decides by the [`share`] of the moment.
#[derive(Debug, Clone)]
struct Shared;

impl ShouldSample for Shared {
    fn should_sample(
        &self,
        parent: Option<&Context>,
        trace: TraceId,
        name: &str,
        kind: &SpanKind,
        attributes: &[KeyValue],
        links: &[Link],
    ) -> SamplingResult {
        let now = Sampler::TraceIdRatioBased(share().unwrap_or(0.0));
        now.should_sample(parent, trace, name, kind, attributes, links)
    }
}

/// Sends what has not been sent yet; at the end of a process.
pub fn flush() {
    if let Some(export) = EXPORT.get()
        && let Err(error) = export.provider.shutdown()
    {
        tracing::warn!("the last traces were not sent: {error}");
    }
}

/// Says to whom a call goes out which request it belongs to.
pub fn inject(metadata: &mut MetadataMap) {
    if let Some(export) = export() {
        export.propagator.inject(&mut Outgoing(metadata));
    }
}

/// The request that is current somewhere: what another task does for it can still be a part of its trace.
#[derive(Debug, Clone)]
pub struct Parent(Context);

impl Parent {
    /// Of what this is called in.
    pub fn current() -> Self {
        Self(Context::current())
    }

    /// Does this work as a part of that request.
    pub fn adopt<F: Future>(self, work: F) -> impl Future<Output = F::Output> {
        work.with_context(self.0)
    }
}

/// A part of the current request that is over: it began `before_ms` ago and took `took_ms`.
pub fn record(name: &'static str, before_ms: f64, took_ms: f64) {
    let Some(export) = export() else { return };
    let milliseconds = |ms: f64| Duration::from_secs_f64(ms.max(0.0) / 1e3);
    let begin = SystemTime::now() - milliseconds(before_ms);
    let span = export.tracer.span_builder(name).with_start_time(begin);
    let mut span = span.start_with_context(&export.tracer, &Context::current());
    span.end_with_timestamp(begin + milliseconds(took_ms));
}

/// Parts that followed each other and have just ended, in their order: names and ms.
pub fn record_parts(parts: &[(&'static str, f64)]) {
    let mut before: f64 = parts.iter().map(|(_, ms)| ms).sum();
    for (name, ms) in parts {
        record(name, before, *ms);
        before -= ms;
    }
}

/// Makes the span of each request of a server.
#[derive(Debug, Clone, Copy, Default)]
pub struct TraceLayer;

impl<S> Layer<S> for TraceLayer {
    type Service = Traced<S>;

    fn layer(&self, inner: S) -> Traced<S> {
        Traced { inner }
    }
}

/// See [`TraceLayer`].
#[derive(Debug, Clone)]
pub struct Traced<S> {
    inner: S,
}

impl<S, B, R> Service<Request<B>> for Traced<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    S::Future: Send + 'static,
    S::Error: 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut TaskContext<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let Some(export) = export() else { return Box::pin(self.inner.call(request)) };
        let parent = export.propagator.extract(&Incoming(request.headers()));
        let path = request.uri().path();
        let span = export.tracer.span_builder(path.to_string()).with_kind(SpanKind::Server);
        let span = span.with_attributes([
            KeyValue::new("http.request.method", request.method().to_string()),
            KeyValue::new("url.path", path.to_string()),
        ]);
        let context = parent.with_span(span.start_with_context(&export.tracer, &parent));
        let begin = Instant::now();
        let answer = self.inner.call(request).with_context(context.clone());
        Box::pin(async move {
            let answer = answer.await;
            let span = context.span();
            if let Ok(response) = &answer {
                say_status(&span, response);
            }
            tracing::debug!(took = ?begin.elapsed(), trace = %span.span_context().trace_id(), "answered");
            span.end();
            answer
        })
    }
}

/// OpenTelemetry's names for what a server said.
fn say_status<R>(span: &opentelemetry::trace::SpanRef<'_>, response: &Response<R>) {
    let status = response.status();
    span.set_attribute(KeyValue::new("http.response.status_code", i64::from(status.as_u16())));
    let grpc = tonic::Status::from_header_map(response.headers());
    if let Some(grpc) = &grpc {
        span.set_attribute(KeyValue::new("rpc.grpc.status_code", grpc.code() as i64));
    }
    if status.is_server_error() || grpc.is_some_and(|grpc| grpc.code() != tonic::Code::Ok) {
        span.set_status(Status::error(""));
    }
}

struct Incoming<'a>(&'a HeaderMap);

impl Extractor for Incoming<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).and_then(|value| value.to_str().ok())
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(|key| key.as_str()).collect()
    }
}

struct Outgoing<'a>(&'a mut MetadataMap);

impl Injector for Outgoing<'_> {
    fn set(&mut self, key: &str, value: String) {
        if let (Ok(key), Ok(value)) =
            (MetadataKey::from_bytes(key.as_bytes()), MetadataValue::try_from(value))
        {
            self.0.insert(key, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Number(u8);

    fn current() -> Option<u8> {
        Context::map_current(|context| context.get::<Number>().map(|number| number.0))
    }

    #[tokio::test]
    async fn another_task_works_as_a_part_of_the_request() {
        let request = Context::new().with_value(Number(7)).attach();
        let parent = Parent::current();
        drop(request);
        assert_eq!(current(), None);
        let adopted = tokio::spawn(parent.adopt(async { current() }));
        let other = tokio::spawn(async { current() });
        assert_eq!((adopted.await.unwrap(), other.await.unwrap()), (Some(7), None));
    }
}

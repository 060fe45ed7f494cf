//! Metrics in Prometheus' text format.
//!
//! Pulled rather than pushed: whoever counts keeps its own numbers and hands them over in
//! [`Collect::collect`], once per scrape, so that the hot path touches no registry.

use super::{Text, names};
use metrics::{gauge, with_local_recorder};
use metrics_exporter_prometheus::{
    BuildError, Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder,
};
use parking_lot::Mutex;
use std::{fmt, sync::Arc, time::Duration};
use tokio::{task::JoinError, time::MissedTickBehavior};
use tokio_util::sync::CancellationToken;

/// Content type of [`Metrics::render`].
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Upper bounds of the `_seconds` histograms: from a checkout without a wait to a timeout.
pub const SECONDS_BUCKETS: [f64; 14] = [
    0.000_1, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 5.0, 30.0, 120.0,
];

/// How often histograms are drained when nobody scrapes, so that they don't grow.
const UPKEEP_PERIOD: Duration = Duration::from_secs(5);

/// Has numbers to tell.
pub trait Collect: Send + Sync {
    /// Sets gauges, and counters by `counter!(…).absolute(n)`, with the names of
    /// [`super::names`]. Called before each scrape, on a thread that may block for a moment.
    fn collect(&self) {}

    /// Writes what no recorder keeps: families that nobody else writes. Called behind all collectors'
    /// [`Collect::collect`].
    fn write(&self, _text: &mut Text) {}
}

/// Why there are no metrics.
#[derive(Debug, thiserror::Error)]
pub enum MetricsError {
    /// The buckets are not allowed.
    #[error("can't set up metrics")]
    Build(#[from] BuildError),
    /// Something else in the process records metrics already.
    #[error("metrics are set up already")]
    Twice,
}

/// All metrics of the process.
pub struct Metrics {
    recorder: Arc<PrometheusRecorder>,
    handle: PrometheusHandle,
    collectors: Mutex<Vec<Arc<dyn Collect>>>,
    /// One scrape at a time: collectors set absolute numbers.
    rendering: tokio::sync::Mutex<()>,
}

impl Metrics {
    /// Metrics that only collectors fill.
    ///
    /// # Errors
    /// Never in practice: the buckets are constants.
    pub fn new() -> Result<Arc<Self>, MetricsError> {
        let seconds = Matcher::Suffix("_seconds".to_owned());
        let recorder = PrometheusBuilder::new()
            .set_buckets_for_metric(seconds, &SECONDS_BUCKETS)?
            .build_recorder();
        with_local_recorder(&recorder, || {
            names::describe();
            gauge!(names::BUILD_INFO, names::VERSION => env!("CARGO_PKG_VERSION")).set(1.0);
        });
        Ok(Arc::new(Self {
            handle: recorder.handle(),
            recorder: Arc::new(recorder),
            collectors: Mutex::default(),
            rendering: tokio::sync::Mutex::default(),
        }))
    }

    /// The same, and `counter!` and its like anywhere in the process count here from now on.
    ///
    /// # Errors
    /// [`MetricsError::Twice`] on a second call.
    pub fn install_recorder() -> Result<Arc<Self>, MetricsError> {
        let this = Self::new()?;
        match metrics::set_global_recorder(Arc::clone(&this.recorder)) {
            Ok(()) => Ok(this),
            Err(_) => Err(MetricsError::Twice),
        }
    }

    /// Asks this one, too, before each scrape.
    pub fn register(&self, collector: Arc<dyn Collect>) {
        self.collectors.lock().push(collector);
    }

    /// Everything, as text, on a blocking thread: it takes milliseconds.
    ///
    /// # Errors
    /// When a collector panicked.
    ///
    /// # Cancel safety
    /// Safe: the text is made to its end and thrown away.
    pub async fn render(self: &Arc<Self>) -> Result<String, JoinError> {
        let _one = self.rendering.lock().await;
        let this = Arc::clone(self);
        tokio::task::spawn_blocking(move || {
            let collectors = this.collectors.lock().clone();
            with_local_recorder(&this.recorder, || {
                for collector in &collectors {
                    collector.collect();
                }
            });
            let mut text = Text::after(this.handle.render());
            for collector in &collectors {
                collector.write(&mut text);
            }
            text.into_string()
        })
        .await
    }

    /// Drains histograms every five seconds, until told to stop.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn upkeep(self: Arc<Self>, stop: CancellationToken) {
        let mut ticks = tokio::time::interval(UPKEEP_PERIOD);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            self.handle.run_upkeep();
        }
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.collectors.lock().len();
        f.debug_struct("Metrics")
            .field("collector_count", &count)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use metrics::{counter, histogram};
    use std::sync::atomic::{AtomicU64, Ordering};

    #[derive(Default)]
    struct Pool {
        transaction_count: AtomicU64,
    }

    impl Collect for Pool {
        fn collect(&self) {
            let count = self.transaction_count.load(Ordering::Relaxed);
            counter!(names::TRANSACTIONS_TOTAL).absolute(count);
            gauge!(names::SERVER_CONNECTIONS, names::STATE => names::IDLE).set(3.0);
            gauge!(names::SERVER_CONNECTIONS, names::STATE => names::ACTIVE).set(1.0);
        }
    }

    #[tokio::test]
    async fn a_scrape_asks_the_collectors_anew() {
        let metrics = Metrics::new().unwrap();
        let pool = Arc::new(Pool::default());
        metrics.register(Arc::clone(&pool) as Arc<dyn Collect>);
        pool.transaction_count.store(5, Ordering::Relaxed);
        let text = metrics.render().await.unwrap();
        for line in [
            "# TYPE pgusher_transactions_total counter",
            "pgusher_transactions_total 5",
            "pgusher_server_connections{state=\"idle\"} 3",
            "pgusher_server_connections{state=\"active\"} 1",
            "# HELP pgusher_server_connections Connections to PostgreSQL now, by state.",
            concat!(
                "pgusher_build_info{version=\"",
                env!("CARGO_PKG_VERSION"),
                "\"} 1"
            ),
        ] {
            assert!(text.lines().any(|it| it == line), "{line}\n{text}");
        }
        pool.transaction_count.store(6, Ordering::Relaxed);
        let text = metrics.render().await.unwrap();
        assert!(text.contains("\npgusher_transactions_total 6\n"), "{text}");
    }

    #[tokio::test]
    async fn a_wait_is_a_histogram_of_seconds() {
        let metrics = Metrics::new().unwrap();
        with_local_recorder(&metrics.recorder, || {
            histogram!(names::CHECKOUT_WAIT_SECONDS).record(0.002);
        });
        let text = metrics.render().await.unwrap();
        for line in [
            "# TYPE pgusher_checkout_wait_seconds histogram",
            "pgusher_checkout_wait_seconds_bucket{le=\"0.001\"} 0",
            "pgusher_checkout_wait_seconds_bucket{le=\"0.0025\"} 1",
            "pgusher_checkout_wait_seconds_count 1",
        ] {
            assert!(text.lines().any(|it| it == line), "{line}\n{text}");
        }
    }

    #[tokio::test]
    async fn the_process_has_one_recorder() {
        let metrics = Metrics::install_recorder().unwrap();
        assert!(matches!(
            Metrics::install_recorder(),
            Err(MetricsError::Twice)
        ));
        counter!(names::CONFIG_RELOADS_TOTAL, names::RESULT => names::OK).increment(1);
        let text = metrics.render().await.unwrap();
        assert!(
            text.contains("pgusher_config_reloads_total{result=\"ok\"} "),
            "{text}"
        );
    }

    #[tokio::test]
    async fn upkeep_ends_when_told() {
        let stop = CancellationToken::new();
        let task = tokio::spawn(Metrics::new().unwrap().upkeep(stop.clone()));
        tokio::task::yield_now().await;
        assert!(!task.is_finished());
        stop.cancel();
        let ended = tokio::time::timeout(UPKEEP_PERIOD, task).await;
        ended.expect("it ends at once").unwrap();
    }
}

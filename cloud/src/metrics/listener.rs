//! Metrics without a key, for a scraper on this machine.

use axum::Router;
use axum::extract::State;
use axum::routing::get;
use oip::listen::{self, FIRST_HEAD_PATIENCE, Listener, Patience};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::TcpListener;

use crate::state::Cloud;

/// Serves `/metrics` until the server stops; where it listens.
pub(crate) async fn serve(cloud: &Arc<Cloud>, listen: SocketAddr) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind(listen).await?;
    let address = listener.local_addr()?;
    let show = |State(cloud): State<Arc<Cloud>>| async move { super::response(&cloud).await };
    let routes = Router::new().route("/metrics", get(show)).with_state(cloud.clone());
    let patience = Patience { first_head: FIRST_HEAD_PATIENCE, on_late: Arc::new(|| ()) };
    let stop = cloud.stopping.subscribe();
    tokio::spawn(listen::serve(Listener::Tcp(listener), routes, patience, stop));
    Ok(address)
}

use super::fake::served;
use crate::Caller;
use crate::listen::{FIRST_HEAD_PATIENCE, Listener, Patience, SocketError, UnixSocket, serve};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::watch;

async fn ask(mut stream: impl AsyncReadExt + AsyncWriteExt + Unpin) -> String {
    let request = "GET /v2/health/live HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn both_kinds_of_socket_answer_and_stop_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("agent.sock");
    let (_, router) = served(Caller::unlimited());
    let (stop, stopped) = watch::channel(false);
    let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = tcp.local_addr().unwrap();
    let unix = UnixSocket::bind(&path).await.unwrap();
    let patience = Patience { first_head: FIRST_HEAD_PATIENCE, on_late: Arc::new(|| ()) };
    let doors = [Listener::Tcp(tcp), Listener::Unix(unix)]
        .map(|door| tokio::spawn(serve(door, router.clone(), patience.clone(), stopped.clone())));
    assert!(ask(TcpStream::connect(address).await.unwrap()).await.contains("200 OK"));
    assert!(ask(UnixStream::connect(&path).await.unwrap()).await.contains("200 OK"));
    stop.send(true).unwrap();
    for door in doors {
        door.await.unwrap();
    }
    assert!(!path.exists());
}

/// Connections that send nothing, half a head, or what could be the beginning of HTTP/2.
#[tokio::test]
async fn who_asks_for_nothing_is_let_go_and_others_are_answered() {
    let (_, router) = served(Caller::unlimited());
    let (stop, stopped) = watch::channel(false);
    let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = tcp.local_addr().unwrap();
    let late = Arc::new(AtomicUsize::new(0));
    let counted = late.clone();
    let on_late = Arc::new(move || {
        counted.fetch_add(1, SeqCst);
    });
    let patience = Patience { first_head: Duration::from_millis(300), on_late };
    let door = tokio::spawn(serve(Listener::Tcp(tcp), router, patience, stopped));
    let mut slow = Vec::new();
    for beginning in ["", "PRI * HTTP/2.0", "GET /v2 HTTP/1.1\r\nHost: loc"].repeat(20) {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(beginning.as_bytes()).await.unwrap();
        slow.push(stream);
    }
    assert!(ask(TcpStream::connect(address).await.unwrap()).await.contains("200 OK"));
    for mut stream in slow {
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).await.unwrap_or(0); // the end, or a reset
        assert!(rest.is_empty());
    }
    assert_eq!(late.load(SeqCst), 60);
    stop.send(true).unwrap();
    door.await.unwrap();
}

#[tokio::test]
async fn a_socket_file_is_for_owner_and_group_and_replaces_only_a_dead_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("agent.sock");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap()); // as after a kill
    let socket = UnixSocket::bind(&path).await.unwrap();
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o660);
    assert!(matches!(UnixSocket::bind(&path).await, Err(SocketError::InUse(_))));
    drop(socket);
    std::fs::write(&path, "something else").unwrap();
    assert!(matches!(UnixSocket::bind(&path).await, Err(SocketError::Occupied(_))));
    let long = Path::new("/tmp").join("x".repeat(120));
    assert!(matches!(UnixSocket::bind(&long).await, Err(SocketError::TooLong(_))));
}

use super::fake::served;
use crate::Caller;
use crate::listen::{Listener, SocketError, UnixSocket, serve};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
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
    let doors = [Listener::Tcp(tcp), Listener::Unix(unix)]
        .map(|door| tokio::spawn(serve(door, router.clone(), stopped.clone())));
    assert!(ask(TcpStream::connect(address).await.unwrap()).await.contains("200 OK"));
    assert!(ask(UnixStream::connect(&path).await.unwrap()).await.contains("200 OK"));
    stop.send(true).unwrap();
    for door in doors {
        door.await.unwrap();
    }
    assert!(!path.exists());
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

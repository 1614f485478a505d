//! Connections of clients: how many there may be, and what comes over one after the other.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use cachevault_testkit::eventually;

use crate::service::{Service, folder};

fn connect(service: &Service) -> TcpStream {
    let address: SocketAddr = service.endpoint.strip_prefix("http://").unwrap().parse().unwrap();
    let connection = TcpStream::connect(address).unwrap();
    connection.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    connection
}

/// Whether an answer comes; a connection that was closed gives none.
fn answers(mut connection: &TcpStream) -> bool {
    let _ = connection.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n");
    let mut start = [0; 12];
    connection.read_exact(&mut start).is_ok() && &start == b"HTTP/1.1 200"
}

#[test]
fn connections_beyond_the_limit_are_closed_at_once() {
    let (_folder, data_dir) = folder();
    let service = Service::start(&data_dir, &["--connections-max", "2"]);
    let open = [connect(&service), connect(&service)];
    assert!(open.iter().all(answers));
    assert!(!answers(&connect(&service)));
    drop(open);
    eventually("a place is free", || answers(&connect(&service)).then_some(()));
}

/// A connection from another address of this machine.
fn connect_from(address: [u8; 4], service: &Service) -> TcpStream {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
    let connection = runtime.block_on(async {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::from((address, 0))).unwrap();
        socket.connect(service.endpoint.strip_prefix("http://").unwrap().parse().unwrap()).await
    });
    let connection = connection.unwrap().into_std().unwrap();
    connection.set_nonblocking(false).unwrap();
    connection.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    connection
}

#[test]
fn one_address_does_not_take_all_connections() {
    let (_folder, data_dir) = folder();
    let service = Service::start(
        &data_dir,
        &["--connections-per-address", "2", "--trusted-proxies", "127.0.0.9,127.9.0.0/16"],
    );
    let open = [connect(&service), connect(&service)];
    assert!(open.iter().all(answers));
    assert!(!answers(&connect(&service)));
    let other = [127, 0, 0, 2];
    assert!(answers(&connect_from(other, &service)));
    // Behind a proxy there are many.
    let proxied: Vec<_> = (0..3).map(|_| connect_from([127, 9, 0, 1], &service)).collect();
    assert!(proxied.iter().all(answers));
    drop(open);
    eventually("a place is free", || answers(&connect(&service)).then_some(()));
}

#[test]
fn a_connection_of_a_listed_proxy_tells_whose_requests_it_brings() {
    let (_folder, data_dir) = folder();
    let flags = ["--trusted-proxies", "127.9.0.0/16", "--proxy-header", "forwarded"];
    let service = Service::start(&data_dir, &flags);
    let guess = |from: [u8; 4], client: &str| {
        let mut connection = connect_from(from, &service);
        let head = format!("host: x\r\nx-auth-token: x\r\nforwarded: for={client}");
        write!(connection, "GET /api/v1/instances HTTP/1.1\r\n{head}\r\n\r\n").unwrap();
        let head = answer(&connection);
        head.split(' ').nth(1).unwrap().to_owned()
    };
    let proxy = [127, 9, 0, 1];
    for _ in 0..100 {
        assert_eq!(guess(proxy, "192.0.2.1"), "401");
    }
    assert_eq!(guess(proxy, "203.0.113.5, for=192.0.2.1"), "429");
    assert_eq!(guess(proxy, "192.0.2.1, for=203.0.113.5"), "401");
    assert_eq!(guess([127, 0, 0, 1], "192.0.2.1"), "401", "nobody else is believed");
}

/// Status and headers of an answer; what follows it is read over.
fn answer(mut connection: &TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        connection.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap().to_lowercase();
    let length = head.split("content-length: ").nth(1).unwrap().split("\r\n").next().unwrap();
    connection.read_exact(&mut vec![0; length.parse().unwrap()]).unwrap();
    head
}

/// Sends a request in one piece, and takes the answer.
fn post(mut connection: &TcpStream, path: &str, header: &str, body: &str) -> String {
    let request = format!("POST {path} HTTP/1.1\r\nhost: x\r\n{header}\r\n\r\n{body}");
    connection.write_all(request.as_bytes()).unwrap();
    answer(connection)
}

#[test]
fn an_answer_before_the_body_leaves_the_connection_of_use() {
    let (_folder, data_dir) = folder();
    let service = Service::start(&data_dir, &[]);
    let connection = connect(&service);
    let body = "x".repeat(60_000);
    let length = format!("content-length: {}", body.len());
    let chunks = format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
    // The last one reads its body.
    for (path, status) in [
        ("/nothing", "404"),
        ("/v2/p/instances/i/backups", "401"),
        ("/healthz", "404"),
        ("/v3/auth/tokens", "400"),
    ] {
        for (header, body) in [(length.as_str(), &body), ("transfer-encoding: chunked", &chunks)] {
            let head = post(&connection, path, header, body);
            assert!(head.starts_with(&format!("http/1.1 {status}")), "{path}: {head}");
            assert!(!head.contains("connection: close"), "{path}: {head}");
        }
    }
    assert!(answers(&connection));
}

#[test]
fn an_answer_before_a_body_that_is_long_or_does_not_come_ends_the_connection_and_says_so() {
    let (_folder, data_dir) = folder();
    let service = Service::start(&data_dir, &[]);
    for (header, sent) in [
        ("content-length: 65537", ""),
        ("content-length: 10", "x"),
        ("content-length: 10\r\nexpect: 100-continue", ""),
        ("transfer-encoding: chunked", "10001\r\n"),
    ] {
        let mut connection = connect(&service);
        let head = post(&connection, "/nothing", header, sent);
        assert!(head.starts_with("http/1.1 404"), "{header}: {head}");
        assert!(head.contains("connection: close"), "{header}: {head}");
        assert_eq!(connection.read(&mut [0]).unwrap(), 0, "{header}");
    }
}

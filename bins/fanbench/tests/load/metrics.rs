//! A page of metrics whose counter grows, and nothing else.

use std::{
    io::{Read as _, Write as _},
    net::TcpListener,
    thread,
};

/// Starts a server whose every answer is the next of these pages, and the last for ever; its URL.
pub(crate) fn start(pages: &[&str]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("it has an address");
    let pages: Vec<String> = pages.iter().map(|page| (*page).to_owned()).collect();
    thread::spawn(move || {
        for (asked, mut socket) in listener.incoming().flatten().enumerate() {
            let mut request = [0; 1024];
            let length = socket.read(&mut request).unwrap_or(0);
            let found = request[..length].starts_with(b"GET /metrics HTTP/1.1\r\n");
            let page = &pages[asked.min(pages.len() - 1)];
            let status = if found { "200 OK" } else { "404 Not Found" };
            // In two pieces, as a longer page comes.
            let (head, rest) = page.split_at(page.len() / 2);
            let length = page.len();
            drop(socket.write_all(format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\n\r\n{head}").as_bytes()));
            drop(socket.write_all(rest.as_bytes()));
        }
    });
    format!("http://{address}/metrics")
}

//! A way to the store that can be held up, cut, and led elsewhere.

use std::net::SocketAddr;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
};

/// Passes bytes between a gateway and its store.
pub(crate) struct Proxy {
    pub(crate) addr: SocketAddr,
    way: watch::Sender<Way>,
}

/// What becomes of connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Way {
    /// Where they lead; none are let through without it.
    target: Option<SocketAddr>,
    /// Counts the cuts: connections of an earlier count end.
    cuts: usize,
    /// The store's answers wait.
    held: bool,
}

impl Proxy {
    pub(crate) async fn to(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let way = watch::Sender::new(Way { target: Some(target), cuts: 0, held: false });
        let ways = way.subscribe();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(connect(client, ways.clone()));
            }
        });
        Self { addr, way }
    }

    /// Ends all connections and lets no other through.
    pub(crate) fn cut(&self) {
        self.way.send_modify(|way| {
            way.target = None;
            way.cuts += 1;
        });
    }

    /// Lets connections through again.
    pub(crate) fn lead_to(&self, target: SocketAddr) {
        self.way.send_modify(|way| way.target = Some(target));
    }

    /// Holds the store's answers back, or lets them through.
    pub(crate) fn hold(&self, held: bool) {
        self.way.send_modify(|way| way.held = held);
    }
}

async fn connect(client: TcpStream, mut ways: watch::Receiver<Way>) {
    let Way { target, cuts, .. } = *ways.borrow_and_update();
    // A store that is away ends the client's connection, as it would itself.
    let Some(target) = target else { return };
    let Ok(store) = TcpStream::connect(target).await else { return };
    let ((from_client, to_client), (from_store, to_store)) = (client.into_split(), store.into_split());
    let both = async {
        tokio::join!(pass(from_client, to_store, None), pass(from_store, to_client, Some(ways.clone())));
    };
    let mut watched = ways.clone();
    tokio::select! {
        () = both => {}
        _ = watched.wait_for(|way| way.cuts != cuts) => {}
    }
}

async fn pass(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut held: Option<watch::Receiver<Way>>) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        if let Some(held) = &mut held
            && held.wait_for(|way| !way.held).await.is_err()
        {
            return;
        }
        if to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
}

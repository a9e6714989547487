//! One edge's stream to its group.

use std::time::Duration;

use cleave_shared::wire::{
    self,
    v1::{self, group_reply::Kind as Reply, group_request::Kind},
};
use tokio::{sync::mpsc, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use crate::{
    cloud::CloudClient,
    train::{ConversationError, sort_status},
};

/// Messages that wait for the network: the chunks of one activation.
const OUTGOING: usize = 4;
/// Largest head or gradient that is accepted, bytes; a limit against a broken peer, not a size.
const MAX_BYTES: usize = 8 << 30;

pub struct GroupStream {
    address: String,
    requests: mpsc::Sender<v1::GroupRequest>,
    replies: Streaming<v1::GroupReply>,
}

impl GroupStream {
    pub async fn join(
        client: &CloudClient,
        join: v1::GroupJoin,
        patience: Duration,
    ) -> Result<Self, ConversationError> {
        let address = client.address().to_string();
        let (requests, outgoing) = mpsc::channel(OUTGOING);
        let first = v1::GroupRequest { kind: Some(Kind::Join(join)) };
        requests.try_send(first).expect("the channel is new");
        match timeout(patience, client.join_group(ReceiverStream::new(outgoing))).await {
            Ok(Ok(replies)) => Ok(Self { address, requests, replies }),
            Ok(Err(status)) => Err(sort_status(&address, &status)),
            Err(_) => {
                let seconds = patience.as_secs();
                let text = format!("the cloud at {address} was silent for {seconds} s");
                Err(ConversationError::Lost(text))
            }
        }
    }

    /// Sends a message and its chunks. A stream that ended says why in [`GroupStream::next`].
    pub async fn send(&mut self, kind: Kind) -> Result<(), ConversationError> {
        for part in wire::send(kind, |kind| v1::GroupRequest { kind: Some(kind) }) {
            if self.requests.send(part).await.is_err() {
                let lost = ConversationError::Lost("the cloud ended the stream".into());
                return Err(self.next().await.err().unwrap_or(lost));
            }
        }
        Ok(())
    }

    /// The next message, whole. The group may have nothing to say to an edge for as long as others have
    /// their turns; a peer that is gone is noticed by HTTP/2's keepalive.
    pub async fn next(&mut self) -> Result<Reply, ConversationError> {
        let first = match self.replies.message().await {
            Ok(Some(v1::GroupReply { kind: Some(kind) })) => kind,
            Ok(Some(_)) => return Err(self.confused()),
            Ok(None) => {
                return Err(ConversationError::Lost("the cloud ended the stream".into()));
            }
            Err(status) => return Err(sort_status(&self.address, &status)),
        };
        let whole = wire::receive(first, MAX_BYTES, &mut self.replies).await;
        whole.map_err(|status| sort_status(&self.address, &status))
    }

    /// The cloud said something that does not follow from what was before.
    pub fn confused(&self) -> ConversationError {
        let address = &self.address;
        ConversationError::Refused(format!("the cloud at {address} answered with something else"))
    }
}

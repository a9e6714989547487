//! What the link itself costs. `benches/link-cost` runs this and writes the report.
//!
//! ```text
//! link_cost serve                              the far end; prints its two ports
//! link_cost grpc PORT ROUNDS                   gRPC over a plain socket, and over the link on `none`
//! link_cost shaped PORT PROFILE SECONDS        bulk through a shaped link, each way
//! ```
//!
//! The far end is another process, so that the near one can be kept on a core of its own. Results are
//! JSON lines.

mod far;
mod grpc;
mod shaped;

use std::{error::Error, time::Duration};

type Outcome<T> = Result<T, Box<dyn Error>>;

/// Bytes of one write or message.
const BLOCK: usize = 1 << 20;

fn main() -> Outcome<()> {
    let mut arguments = std::env::args().skip(1);
    let mut next = |what| arguments.next().ok_or(format!("{what} is missing"));
    // One thread, as the edge's connection has; the link's clock is a second one.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    match next("serve, grpc or shaped")?.as_str() {
        "serve" => runtime.block_on(far::serve()),
        "grpc" => {
            let (port, rounds) = (next("PORT")?.parse()?, next("ROUNDS")?.parse()?);
            runtime.block_on(grpc::compare(port, rounds))
        }
        "shaped" => {
            let (port, profile) = (next("PORT")?.parse()?, next("PROFILE")?);
            let time = Duration::from_secs_f64(next("SECONDS")?.parse()?);
            runtime.block_on(shaped::measure(port, &profile, time))
        }
        other => Err(format!("{other} is neither serve, grpc nor shaped").into()),
    }
}

//! Bulk through a shaped link, and the processor time that it takes.

use std::{
    io,
    time::{Duration, Instant},
};

use cleave_shared::link::{Link, LinkStream, Profile, Way};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::{BLOCK, Outcome};

/// Until slow start is over.
const WARM_UP: Duration = Duration::from_millis(500);
/// Linux' unit of processor time in /proc, a second's part.
const TICKS: f64 = 100.0;

/// Prints a line for each direction: Gbit/s of payload, and processor time as a share of the time.
pub async fn measure(port: u16, profile: &str, time: Duration) -> Outcome<()> {
    for way in [Way::Uplink, Way::Downlink] {
        let link = Link::new(Profile::find(profile, None)?, 1);
        let socket = TcpStream::connect(("127.0.0.1", port)).await?;
        socket.set_nodelay(true)?;
        let mut stream = link.shape(socket);
        let task = tokio::spawn(async move { run(&mut stream, way).await });
        tokio::time::sleep(WARM_UP).await;
        let delivered = || match way {
            Way::Uplink => link.counters().uplink.delivered_bytes,
            Way::Downlink => link.counters().downlink.delivered_bytes,
        };
        let (begin, bytes, busy) = (Instant::now(), delivered(), processor_s()?);
        tokio::time::sleep(time).await;
        let took = begin.elapsed().as_secs_f64();
        let (bytes, busy) = (delivered() - bytes, processor_s()? - busy);
        task.abort();
        let way = if way == Way::Uplink { "uplink" } else { "downlink" };
        let gbit_s = bytes as f64 * 8e-9 / took;
        println!("{}", json!({ "way": way, "gbit_s": gbit_s, "cores": busy / took }));
    }
    Ok(())
}

async fn run(stream: &mut LinkStream<TcpStream>, way: Way) -> io::Result<()> {
    let mut block = vec![0; BLOCK];
    if way == Way::Uplink {
        stream.write_u8(b'u').await?;
        loop {
            stream.write_all(&block).await?;
        }
    }
    stream.write_u8(b'd').await?;
    while stream.read(&mut block).await? > 0 {}
    Ok(())
}

/// User and system time of this process, s (proc(5): fields 14 and 15, counted after the name).
fn processor_s() -> Outcome<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let fields = stat.rsplit_once(')').ok_or("/proc/self/stat is not as proc(5) says")?.1;
    let ticks = fields.split_whitespace().skip(11).take(2).map(str::parse::<f64>);
    Ok(ticks.sum::<Result<f64, _>>()? / TICKS)
}

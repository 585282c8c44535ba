//! What sockets can do at best: one thread writes, one reads, nothing else happens.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    sync::mpsc::sync_channel,
    time::{Duration, Instant},
};

use super::{Fault, child};

/// How long frames are written.
const LOOP: Duration = Duration::from_secs(1);
/// Bytes of a delivered JSON frame with a text of 128 bytes, about.
const FRAME_BYTES: usize = 400;
/// What is read at once.
const READ_BYTES: usize = 64 * 1024;

/// Frames a second that reach `sockets` sockets with `frames` of them in each write. The next round begins when all have the last.
pub fn deliveries(sockets: usize, frames: usize) -> Result<f64, Fault> {
    let listener = TcpListener::bind(child::free_address()?)?;
    let address = listener.local_addr()?;
    let (mut near, mut far) = (Vec::with_capacity(sockets), Vec::with_capacity(sockets));
    for _ in 0..sockets {
        far.push(TcpStream::connect(address)?);
        let stream = listener.accept()?.0;
        stream.set_nodelay(true)?;
        near.push(stream);
    }
    let round = vec![7; FRAME_BYTES * frames];
    let bytes = round.len();
    let (all_have_it, wait) = sync_channel::<()>(1);
    let reader = std::thread::spawn(move || {
        let mut buffer = vec![0; READ_BYTES.max(bytes)];
        // Ends with the writer: its sockets close.
        loop {
            for stream in &mut far {
                let mut left = bytes;
                while left > 0 {
                    match stream.read(&mut buffer[..left]) {
                        Ok(0) | Err(_) => return,
                        Ok(read) => left -= read,
                    }
                }
            }
            if all_have_it.send(()).is_err() {
                return;
            }
        }
    });
    let (began, mut rounds) = (Instant::now(), 0_u64);
    while began.elapsed() < LOOP {
        for stream in &mut near {
            stream.write_all(&round)?;
        }
        wait.recv()?;
        rounds += 1;
    }
    let rate = rounds as f64 * (sockets * frames) as f64 / began.elapsed().as_secs_f64();
    for stream in &near {
        // No port stays taken.
        socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO))?;
    }
    drop(near);
    reader.join().map_err(|_| "the reading thread panicked")?;
    Ok(rate)
}

#[cfg(test)]
mod tests {
    #[test]
    fn frames_reach_every_socket() {
        assert!(super::deliveries(5, 3).unwrap() > 0.0);
    }
}

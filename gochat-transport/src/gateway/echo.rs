//! An echo server on the gateway's own frame reader, for the Autobahn cases (feature `echo`; no part of a server).
//!
//! It reads, checks, joins and closes with the functions that every connection is served with, and sends messages back where
//! a connection would handle them.

use std::{future::poll_fn, pin::Pin};

use bytes::{Bytes, BytesMut};
use fastwebsockets::OpCode;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use super::{
    GatewaySettings,
    websocket::{Assembled, Header, Parser, assemble, close_reply, write_close, write_frame},
};

/// Serves a socket that was upgraded until its end; `early` is what came together with the upgrade request.
///
/// # Errors
/// Those of the socket.
pub async fn serve(mut stream: TcpStream, early: Bytes, settings: &GatewaySettings) -> std::io::Result<()> {
    let mut parser = Parser::new();
    let (mut held, mut fragments, mut out) = (early.to_vec(), None, BytesMut::new());
    let mut end = parser.refill(&held);
    let code = 'open: loop {
        let mut at = 0;
        let end_code = loop {
            let bytes = match parser.header(at, end, settings.frame_bytes_max) {
                Header::Frame { bytes } if at + bytes <= end => bytes,
                Header::Frame { .. } | Header::Incomplete => break None,
                Header::Refused(code) => break Some(code),
            };
            let frame = match parser.frame(at, at + bytes) {
                Ok(frame) => frame,
                Err(code) => break Some(code),
            };
            at += bytes;
            match frame.opcode {
                OpCode::Close => break Some(close_reply(&frame.payload)),
                OpCode::Ping => write_frame(&mut out, OpCode::Pong, &frame.payload),
                OpCode::Pong => {}
                OpCode::Text | OpCode::Binary | OpCode::Continuation => {
                    match assemble(&mut fragments, &frame, settings.frame_bytes_max, settings.fragments_max) {
                        Assembled::Partial => {}
                        Assembled::Refused(code) => break Some(code),
                        Assembled::Whole(opcode, joined) => write_frame(&mut out, opcode, joined.as_deref().unwrap_or(&frame.payload)),
                    }
                }
            }
        };
        stream.write_all(&out.split()).await?;
        if let Some(code) = end_code {
            break 'open code;
        }
        parser.keep(&mut held, at, end);
        end = match poll_fn(|cx| parser.fill(&held, usize::MAX / 2, |buffer| Pin::new(&mut stream).poll_read(cx, buffer))).await {
            Ok(end) => end,
            Err(_) => return Ok(()),
        };
    };
    write_close(&mut out, code);
    stream.write_all(&out).await?;
    stream.shutdown().await?;
    // To hang up with unread input would reset the connection, and the Close frame with it.
    let mut rest = [0; 4096];
    let _ = timeout(settings.linger, async {
        while stream.read(&mut rest).await? > 0 {}
        Ok::<(), std::io::Error>(())
    })
    .await;
    Ok(())
}

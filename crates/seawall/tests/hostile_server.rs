//! A server that is somebody else's: what it says is shown on a line of its own, and does nothing.

mod support;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use support::Protected;

/// A refusal of which a terminal, a log and a list would make more than one line.
const REFUSAL: &str = "SFATAL\0VFATAL\0C28000\0Mgone\nOK    main  all is well\r\x1b[2K\x1b[1A\0\
    Dmore\nOK    main\0Hdo\nOK    main\0\0";

/// Reads the first packet, and declines TLS if it is the request for that.
fn startup(stream: &mut TcpStream) -> std::io::Result<()> {
    loop {
        let mut length = [0; 4];
        stream.read_exact(&mut length)?;
        let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(4).max(4);
        let mut packet = vec![0; length - 4];
        stream.read_exact(&mut packet)?;
        if packet != 80_877_103_u32.to_be_bytes() {
            return Ok(());
        }
        stream.write_all(b"N")?;
    }
}

/// Answers every login with `answer` and then says nothing more; gives the port.
fn serve(answer: Vec<u8>) -> Result<u16> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let port = listener.local_addr()?.port();
    // It ends with the test's process.
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let answer = answer.clone();
            thread::spawn(move || {
                if startup(&mut stream).and_then(|()| stream.write_all(&answer)).is_ok() {
                    let mut rest = Vec::new();
                    // Until the client goes away, however it does.
                    let _ = stream.read_to_end(&mut rest);
                }
            });
        }
    });
    Ok(port)
}

fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).unwrap_or(u32::MAX);
    [&[tag], length.to_be_bytes().as_slice(), body].concat()
}

fn connection(port: u16) -> String {
    format!("host=127.0.0.1 port={port} user=u sslmode=disable")
}

#[test]
fn a_refusal_adds_no_line_to_status_and_moves_no_cursor() -> Result<()> {
    let house = Protected::start()?;
    house.backup()?;
    let connection = connection(serve(message(b'E', REFUSAL.as_bytes()))?);
    for command in ["status", "check", "backup", "info"] {
        let words = [command, "main", "--connection", &connection];
        let output = house.command(words).run()?;
        let said = format!("{}{}", output.stdout, output.stderr);
        ensure!(!said.contains('\x1b') && !said.contains('\r'), "{command}: {said}");
        ensure!(!said.lines().any(|line| line.starts_with("OK")), "{command}: {said}");
    }
    let status = house.command(["status", "main", "--connection", &connection]).run()?;
    ensure!(status.stdout.lines().count() == 1, "{}", status.stdout);
    Ok(())
}

#[test]
fn a_server_that_falls_silent_does_not_hold_status() -> Result<()> {
    let house = Protected::start()?;
    let login = [message(b'R', &[0; 4]), message(b'S', b"server_version\x0015.4\0")].concat();
    let ready = [message(b'K', &[0; 8]), message(b'Z', b"I")].concat();
    for answer in [Vec::new(), [login, ready].concat()] {
        let connection = connection(serve(answer)?);
        let begun = Instant::now();
        house.command(["status", "main", "--connection", &connection]).run()?;
        ensure!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
    }
    Ok(())
}

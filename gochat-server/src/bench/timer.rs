//! Ends a wait for sockets at an instant finer than the millisecond that polling knows. Where the system has no such timer, a wait
//! ends up to a millisecond late.

#[cfg(target_os = "linux")]
pub use linux::Timer;
#[cfg(not(target_os = "linux"))]
pub use other::Timer;

#[cfg(target_os = "linux")]
mod linux {
    use std::{
        os::fd::{AsRawFd, OwnedFd},
        time::Duration,
    };

    use mio::{Interest, Registry, Token, unix::SourceFd};
    use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime};

    use crate::Fault;

    pub struct Timer(OwnedFd);

    impl Timer {
        /// A timer whose end is an event with this token.
        pub fn new(registry: &Registry, token: Token) -> Result<Timer, Fault> {
            let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
            registry.register(&mut SourceFd(&timer.as_raw_fd()), token, Interest::READABLE)?;
            Ok(Timer(timer))
        }

        /// Lets it end once, after so long.
        pub fn wake_in(&self, delay: Duration) -> Result<(), Fault> {
            // Zero would switch it off.
            let delay = delay.max(Duration::from_nanos(1));
            let value = Timespec { tv_sec: delay.as_secs() as i64, tv_nsec: i64::from(delay.subsec_nanos()) };
            let once = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value: value };
            timerfd_settime(&self.0, TimerfdTimerFlags::empty(), &once)?;
            Ok(())
        }

        /// Takes note of its end, so that the next one is an event again.
        pub fn ended(&self) {
            let _ = rustix::io::read(&self.0, &mut [0; 8]);
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod other {
    use std::time::Duration;

    use mio::{Registry, Token};

    use crate::Fault;

    pub struct Timer;

    impl Timer {
        pub fn new(_: &Registry, _: Token) -> Result<Timer, Fault> {
            Ok(Timer)
        }

        pub fn wake_in(&self, _: Duration) -> Result<(), Fault> {
            Ok(())
        }

        pub fn ended(&self) {}
    }
}

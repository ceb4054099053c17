//! Progress for people: bars on a terminal, plain lines otherwise.

use std::io::{IsTerminal, Read, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use heat_ood::{Event, Observer, printable};
use indicatif::{DecimalBytes, ProgressBar, ProgressStyle};

static STOP: LazyLock<Arc<AtomicBool>> = LazyLock::new(Arc::default);

/// The exit code after Ctrl-C, as a shell gives it to a command that the signal ended.
pub const INTERRUPTED: u8 = 130;

/// Whether a stop was asked for.
pub fn interrupted() -> bool {
    STOP.load(Ordering::SeqCst)
}

/// Whether something listens to Ctrl-C already.
static LISTENING: AtomicBool = AtomicBool::new(false);

/// Ask for a stop on the first Ctrl-C; leave at once on the second. Again it
/// does nothing.
pub fn stop_on_ctrl_c() -> anyhow::Result<()> {
    if LISTENING.swap(true, Ordering::SeqCst) {
        return Ok(());
    }
    ctrlc::set_handler(|| {
        if STOP.swap(true, Ordering::SeqCst) {
            std::process::exit(INTERRUPTED.into());
        }
        let _ = writeln!(
            std::io::stderr(),
            "stopping; press Ctrl-C again to leave without a checkpoint"
        );
    })?;
    Ok(())
}

/// For a run of a sweep: stop at the parent's word on standard input, leave at
/// once when the parent is gone. Ctrl-C is the parent's to hear.
pub fn obey_parent() -> anyhow::Result<()> {
    LISTENING.store(true, Ordering::SeqCst);
    ctrlc::set_handler(|| STOP.store(true, Ordering::SeqCst))?;
    std::thread::spawn(|| {
        let mut word = [0];
        loop {
            match std::io::stdin().read(&mut word) {
                Ok(1..) => STOP.store(true, Ordering::SeqCst),
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                Ok(0) | Err(_) => std::process::exit(1),
            }
        }
    });
    Ok(())
}

/// Leave at once on Ctrl-C, saying `text`. For work that keeps what is done in
/// files at every moment.
pub fn leave_on_ctrl_c(text: &'static str) -> anyhow::Result<()> {
    ctrlc::set_handler(move || {
        let _ = writeln!(std::io::stderr(), "\n{text}");
        std::process::exit(INTERRUPTED.into());
    })?;
    Ok(())
}

/// How often it is told how far work is where there is no terminal.
const PLAIN_EVERY: Duration = Duration::from_secs(30);

/// Work that is told in plain lines.
struct Plain {
    task: String,
    done: u64,
    total: Option<u64>,
    loss: Option<f64>,
    /// Whether it is counted in bytes.
    bytes: bool,
    begun: Instant,
}

impl Plain {
    fn new(task: String, done: u64, total: Option<u64>, bytes: bool) -> Self {
        Plain { task, done, total, loss: None, bytes, begun: Instant::now() }
    }

    fn line(&self) -> String {
        let amount = |n| if self.bytes { DecimalBytes(n).to_string() } else { n.to_string() };
        let of = self.total.map_or(String::new(), |total| format!(" of {}", amount(total)));
        let loss = self.loss.map_or(String::new(), |loss| format!(", loss {loss:.5}"));
        let time = human(self.begun.elapsed());
        format!("{}: {}{of}{loss}, {time} elapsed", self.task, amount(self.done))
    }
}

/// Tells how far work is at fixed times, also while it has nothing new to report. The clock goes on
/// from one piece of work to the next: many short ones are told as often as a long one.
struct Teller(Arc<Mutex<Option<Plain>>>);

impl Teller {
    fn new(every: Duration, tell: impl Fn(&str) + Send + 'static) -> Self {
        let work = Arc::new(Mutex::new(None));
        let watched = Arc::downgrade(&work);
        let mut told = Instant::now();
        std::thread::spawn(move || {
            loop {
                std::thread::sleep(every / 60);
                let Some(work) = watched.upgrade() else { return };
                if told.elapsed() + every / 60 < every {
                    continue;
                }
                // Between two pieces of work there is nothing to tell; the next one is told at once.
                if let Some(plain) = &*locked(&work) {
                    told = Instant::now();
                    tell(&plain.line());
                }
            }
        });
        Teller(work)
    }

    fn work(&self) -> MutexGuard<'_, Option<Plain>> {
        locked(&self.0)
    }
}

/// What another thread left when it panicked is as good as any.
fn locked(work: &Mutex<Option<Plain>>) -> MutexGuard<'_, Option<Plain>> {
    work.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Names and other texts of files may be in it.
fn clean(text: &str) -> String {
    let lines: Vec<String> = text.lines().map(printable).collect();
    lines.join("\n")
}

fn write_lines(text: &str) {
    // Nobody may be listening any more; that is no reason to stop.
    let _ = writeln!(std::io::stderr(), "{}", clean(text));
}

/// Shows events on standard error.
pub struct Progress {
    quiet: bool,
    terminal: bool,
    bar: Option<ProgressBar>,
    teller: Option<Teller>,
    /// Put before the names of tasks.
    pub label: String,
    /// Epochs still to come, for the time left.
    pub epochs_left: Option<usize>,
    epoch_start: Instant,
}

impl Progress {
    pub fn new(quiet: bool) -> Self {
        Progress {
            quiet,
            terminal: std::io::stderr().is_terminal(),
            bar: None,
            teller: None,
            label: String::new(),
            epochs_left: None,
            epoch_start: Instant::now(),
        }
    }

    pub fn is_quiet(&self) -> bool {
        self.quiet
    }

    /// A line of text, above the bar.
    pub fn say(&self, text: &str) {
        if !self.quiet {
            self.tell(text);
        }
    }

    fn tell(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.println(clean(text)),
            None => write_lines(text),
        }
    }

    /// A warning, which is told even to who wants no progress.
    pub fn warn(&self, text: &str) {
        self.tell(&format!("warning: {text}"));
    }

    /// Remove the bar.
    pub fn clear(&mut self) {
        if let Some(teller) = &self.teller {
            *teller.work() = None;
        }
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }

    /// Begin work that is counted in bytes, of which `done` are there already.
    pub fn bytes(&mut self, task: &str, done: u64, total: Option<u64>) {
        self.clear();
        if self.quiet {
            return;
        }
        if !self.terminal {
            return self.begin_plain(Plain::new(task.to_owned(), done, total, true));
        }
        let template = match total {
            Some(_) => {
                "{msg} {wide_bar} {decimal_bytes}/{decimal_total_bytes} {decimal_bytes_per_sec}, {eta} left"
            }
            None => "{msg} {spinner} {decimal_bytes} {decimal_bytes_per_sec}, {elapsed} elapsed",
        };
        let style =
            ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
        let bar = total.map_or_else(ProgressBar::no_length, ProgressBar::new);
        let bar = bar.with_style(style).with_position(done);
        // The rate is of what comes from now on.
        bar.reset_eta();
        bar.set_message(task.to_owned());
        self.bar = Some(bar);
    }

    /// Told every [`PLAIN_EVERY`] from the first piece of work on.
    fn begin_plain(&mut self, plain: Plain) {
        let teller = self.teller.get_or_insert_with(|| Teller::new(PLAIN_EVERY, write_lines));
        *teller.work() = Some(plain);
    }

    fn begin(&mut self, task: &str, total: u64) {
        self.clear();
        self.epoch_start = Instant::now();
        if self.quiet {
            return;
        }
        let name =
            if self.label.is_empty() { task.to_owned() } else { format!("{}: {task}", self.label) };
        if !self.terminal {
            return self.begin_plain(Plain::new(name, 0, (total > 0).then_some(total), false));
        }
        let template = "{msg} {wide_bar} {pos}/{len} {prefix} {elapsed} elapsed, {eta} left";
        let style =
            ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
        let bar = ProgressBar::new(total).with_style(style);
        bar.set_message(name);
        self.bar = Some(bar);
    }

    fn epoch(&mut self, log: &heat_ood::EpochLog) {
        let seconds = self.epoch_start.elapsed();
        let left = self.epochs_left.map(|n| n.saturating_sub(log.epoch));
        let left = left
            .filter(|n| *n > 0)
            .map_or(String::new(), |n| format!(", {} left", human(seconds * n as u32)));
        let name = if self.label.is_empty() { String::new() } else { format!("{}: ", self.label) };
        self.say(&format!(
            "{name}epoch {}: loss {}, cd {}, l2 {}, network's energy real {} generated {}, whole {} {} ({}{left})",
            log.epoch,
            digits(log.loss),
            digits(log.cd_loss),
            digits(log.l2_loss),
            digits(log.energy_nn_real),
            digits(log.energy_nn_generated),
            digits(log.energy_real),
            digits(log.energy_generated),
            human(seconds),
        ));
    }
}

/// Four significant digits; very small and very large numbers with an exponent.
pub fn digits(value: f64) -> String {
    const DIGITS: i32 = 4;
    if value == 0.0 || !value.is_finite() {
        return value.to_string();
    }
    // Of the rounded number: 9.9999 has two digits before the point.
    let scientific = format!("{value:.*e}", DIGITS as usize - 1);
    let exponent: i32 = scientific.split_once('e').and_then(|(_, e)| e.parse().ok()).unwrap_or(0);
    match exponent {
        -4..7 => format!("{value:.*}", (DIGITS - 1 - exponent).max(0) as usize),
        _ => scientific,
    }
}

/// "1m 05s", "3.2s".
pub fn human(d: Duration) -> String {
    let s = d.as_secs();
    match s {
        0..60 => format!("{:.1}s", d.as_secs_f64()),
        60..3600 => format!("{}m {:02}s", s / 60, s % 60),
        _ => format!("{}h {:02}m", s / 3600, s % 3600 / 60),
    }
}

impl Observer for Progress {
    fn on(&mut self, event: Event<'_>) {
        match event {
            Event::Begin { task, total } => self.begin(task, total),
            Event::Advance { done, loss } => {
                if let Some(bar) = &self.bar {
                    bar.set_position(done);
                    if let Some(loss) = loss {
                        bar.set_prefix(format!("loss {loss:.5}"));
                    }
                }
                if let Some(teller) = &self.teller
                    && let Some(plain) = teller.work().as_mut()
                {
                    (plain.done, plain.loss) = (done, loss.map(f64::from));
                }
            }
            Event::End => self.clear(),
            Event::Epoch(log) => self.epoch(log),
            Event::Note(text) => self.say(text),
            Event::Warning(text) => self.warn(text),
            _ => {}
        }
    }

    fn should_stop(&self) -> bool {
        STOP.load(Ordering::SeqCst)
    }

    fn stop_flag(&self) -> Option<Arc<AtomicBool>> {
        Some(Arc::clone(&STOP))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_is_told_while_nothing_comes_of_it() {
        let (sender, told) = std::sync::mpsc::channel();
        let every = Duration::from_millis(300);
        let begun = Instant::now();
        let teller = Teller::new(every, move |line| sender.send(line.to_owned()).unwrap());
        let mut plain = Plain::new("fit".into(), 7, Some(10), false);
        plain.loss = Some(0.5);
        *teller.work() = Some(plain);
        for n in 1..=2 {
            let line = told.recv_timeout(Duration::from_secs(20)).unwrap();
            assert!(line.starts_with("fit: 7 of 10, loss 0.50000, "), "{line}");
            assert!(begun.elapsed() >= n * every * 9 / 10, "{line} after {:?}", begun.elapsed());
        }
        // Nor after its end.
        *teller.work() = None;
        drop(teller);
        let late: Vec<String> = told.iter().collect();
        assert!(late.len() < 2, "{late:?}");
    }

    /// Forty pieces of work, each of a fifth of the time between two lines.
    #[test]
    fn many_short_works_are_told_as_often_as_a_long_one() {
        let (sender, told) = std::sync::mpsc::channel();
        let every = Duration::from_millis(300);
        let begun = Instant::now();
        let teller = Teller::new(every, move |line| sender.send(line.to_owned()).unwrap());
        for n in 0..40 {
            *teller.work() = Some(Plain::new(format!("score set {n}"), 0, Some(10), false));
            std::thread::sleep(every / 5);
            *teller.work() = None;
        }
        let periods = begun.elapsed().as_millis() / every.as_millis();
        drop(teller);
        let lines: Vec<String> = told.iter().collect();
        assert!(lines.iter().all(|line| line.starts_with("score set ")), "{lines:?}");
        // 8 periods where nothing else takes the processor.
        assert!((4..=periods + 1).contains(&(lines.len() as u128)), "{periods}: {lines:?}");
    }

    #[test]
    fn four_digits_say_something() {
        for (value, want) in [
            (0.0, "0"),
            (-0.000_012_34, "-1.234e-5"),
            (0.000_123_45, "0.0001234"),
            (-0.5, "-0.5000"),
            (9.99996, "10.00"),
            (-612.345, "-612.3"),
            (123_456.7, "123457"),
            (1.5e9, "1.500e9"),
            (f64::NAN, "NaN"),
        ] {
            assert_eq!(digits(value), want, "{value}");
        }
    }
}

#![no_main]

heat_fuzz::target!("idx");

#![no_main]

heat_fuzz::target!("lsun");

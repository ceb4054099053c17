#![no_main]

heat_fuzz::target!("picture_lists");

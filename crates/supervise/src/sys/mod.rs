//! System calls that no safe wrapper has, each as a safe function.

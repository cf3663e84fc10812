<?php
// PHP's curl extension and its streams: `php client.php BASE PLAN`, PLAN as tab-separated lines (variant, method, path, body, name, value, …).
echo PHP_VERSION, "\n";
$second = getenv("EDGE_HTTP") !== "1";
foreach (file($argv[2], FILE_IGNORE_NEW_LINES) as $line) {
    $part = explode("\t", $line);
    $lines = [];
    for ($at = 4; $at + 1 < count($part); $at += 2) $lines[] = $part[$at] . ": " . $part[$at + 1];
    $one = curl_init($argv[1] . "/c/php-curl/" . $part[0] . "/" . $part[2]);
    curl_setopt_array($one, [
        CURLOPT_RETURNTRANSFER => true, CURLOPT_SSL_VERIFYPEER => false, CURLOPT_CUSTOMREQUEST => $part[1], CURLOPT_HTTPHEADER => $lines,
        CURLOPT_HTTP_VERSION => $second ? CURL_HTTP_VERSION_2TLS : CURL_HTTP_VERSION_1_1, CURLOPT_TIMEOUT => 10,
    ]);
    if ($part[3] !== "") curl_setopt($one, CURLOPT_POSTFIELDS, $part[3]);
    curl_exec($one);
    if ($second) continue;
    $context = stream_context_create([
        "http" => ["method" => $part[1], "header" => $lines, "content" => $part[3], "ignore_errors" => true, "timeout" => 10],
        "ssl" => ["verify_peer" => false, "verify_peer_name" => false],
    ]);
    @file_get_contents($argv[1] . "/c/php-stream/" . $part[0] . "/" . $part[2], false, $context);
}

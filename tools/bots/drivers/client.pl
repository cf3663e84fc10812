# LWP of Perl: `perl client.pl BASE PLAN` with PLAN as tab-separated lines (variant, method, path, body, name, value, …).
use strict;
use warnings;
use LWP::UserAgent;
print "$LWP::UserAgent::VERSION\n";
open(my $plan, "<", $ARGV[1]) or die;
while (my $line = <$plan>) {
    chomp $line;
    my ($variant, $verb, $path, $body, @rest) = split /\t/, $line, -1;
    my $agent = LWP::UserAgent->new(timeout => 10, ssl_opts => { verify_hostname => 0, SSL_verify_mode => 0 });
    my $asked = HTTP::Request->new($verb, "$ARGV[0]/c/perl-lwp/$variant/$path");
    while (my ($name, $value) = splice(@rest, 0, 2)) { $asked->header($name => $value); }
    $asked->content($body) if $body ne "";
    $agent->request($asked);
}

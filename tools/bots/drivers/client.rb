# Net::HTTP of Ruby: `ruby client.rb BASE PLAN` with PLAN as tab-separated lines (variant, method, path, body, name, value, …).
require "net/http"
require "openssl"

puts RUBY_VERSION
File.readlines(ARGV[1], chomp: true).each do |line|
  variant, verb, path, body, *rest = line.split("\t", -1)
  at = URI("#{ARGV[0]}/c/ruby/#{variant}/#{path}")
  asked = (verb == "POST" ? Net::HTTP::Post : Net::HTTP::Get).new(at)
  rest.each_slice(2) { |name, value| asked[name] = value }
  asked.body = body unless body.empty?
  begin
    Net::HTTP.start(at.host, at.port, use_ssl: true, verify_mode: OpenSSL::SSL::VERIFY_NONE, read_timeout: 10) { |http| http.request(asked) }
  rescue StandardError => e
    warn e.message
  end
end

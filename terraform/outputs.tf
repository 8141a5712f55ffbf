output "database" {
  description = "Connection name of the configuration database, for the Auth Proxy."
  value       = google_sql_database_instance.config.connection_name
}

output "live" {
  description = "The release that has the traffic."
  value       = var.live == "" ? var.release : var.live
}

output "pipeline" {
  description = "The service account that builds run as."
  value       = google_service_account.pipeline.email
}

output "region" {
  description = "Where the functions are."
  value       = var.region
}

output "release" {
  description = "The newest release, which may have no traffic yet."
  value       = var.release
}

output "urls" {
  description = "The functions' own addresses."
  value       = local.urls
}

output "next_urls" {
  description = "The addresses of the newest revisions, also while they have no traffic."
  value = {
    for name, url in local.urls :
    name => contains(["", var.release], var.live) ? url : replace(url, "https://", "https://next---")
  }
}

output "account" {
  description = "The function's service account, as a resource name."
  value       = google_service_account.function.name
}

output "member" {
  description = "The function's service account, as a member of IAM policies."
  value       = google_service_account.function.member
}

output "service" {
  description = "Name of the Cloud Run service."
  value       = local.service
}
